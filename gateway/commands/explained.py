"""An explanation on a terminal of 100 columns. What came from a prompt was made visible before (router/explaining/
explanation.py), and is printed as text, never as markup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.console import out

WIDTH = 100
BAR = 30
MOST_DOMAINS = 8
STRONG, WEAK = 0.5, 0.1  # of the greatest effect, from which a piece is highlighted so

Values = Mapping[str, Any]


def print_explained(document: Values) -> None:
    """`document` is what POST /v1/route answers where it is asked to explain."""
    out.print(Group(*rendered(document)), highlight=False, width=min(out.width, WIDTH))


def rendered(document: Values) -> Iterator[RenderableType]:
    """The lines, paragraphs and tables of `document`, from top to bottom."""
    about = document["explanation"]
    yield Text.assemble((document["expert"], "bold"), "  ", (document["model"], "dim"))
    yield Text(about["why"])
    yield Text(" · ".join(_facts(document)), "dim")
    if document["probabilities"]:
        yield from _section("probabilities", "", _probabilities(document["probabilities"]))
    if about["stages"]:
        yield from _section("stages", "the last turn by itself", _stages(about["stages"]))
    if about["features"]:
        features = about["features"]
        note = f"{features['stage']} stage, {features['method']}"
        yield from _section("strongest features", note, _sentence(features), _words(features))
    if about["nearest"]:
        nearest = about["nearest"]
        what = Text(nearest["missing"], "yellow") if nearest["missing"] else _neighbours(nearest["examples"])
        yield from _section("nearest training prompts", f"cosine, {nearest['stage']} stage", what)
    if about["conversation"]:
        turns, weighings = _turns(about["conversation"]["turns"]), "\n".join(_weighings(about["conversation"]))
        yield from _section("conversation", "topic by itself, and with what came before", turns, Text(weighings))
    policy = about["policy"]
    rule = f"{policy['name']}: {policy['rule']}" if policy else ""
    yield from _section("experts", rule, _experts(about["experts"]), _notes(policy))


def _section(title: str, note: str, *parts: Text | Table) -> Iterator[RenderableType]:
    yield Text.assemble(("\n" + title, "bold"), (f"  {note}" if note else "", "dim"))
    for part in parts:
        if not isinstance(part, Text) or part.plain:
            yield Padding(part, (0, 0, 0, 2), expand=False)


def _facts(document: Values) -> Iterator[str]:
    about = document["explanation"]
    yield f"reason {document['reason']}"
    if document["domain"]:
        yield f"{document['domain']} {document['confidence']:.3f}"
    if document["runner_up"]:
        yield f"runner-up {document['runner_up']} {document['probabilities'][document['runner_up']]:.3f}"
    yield f"language {document['language'] or 'unknown'}"
    yield f"{document['stage'] if about['stages'] else 'nothing classified'}, {document['latency_ms']:.1f} ms"


def _probabilities(by_domain: Mapping[str, float]) -> Table:
    table = _table("", "", "")
    ordered = sorted(by_domain.items(), key=lambda item: -item[1])
    for domain, probability in ordered[:MOST_DOMAINS]:
        table.add_row(Text(domain), f"{probability:.3f}", "█" * round(BAR * probability))
    return table


def _stages(stages: Sequence[Values]) -> Table:
    table = _table("stage", "encoder", "says", "sure from", "ms", "")
    for stage in stages:
        ordered = sorted(stage["probabilities"].items(), key=lambda item: -item[1])
        says = ", ".join(f"{domain} {probability:.3f}" for domain, probability in ordered[:3])
        part = _part(stage)
        sure = f"{stage['sure']:.2f}" if stage["sure"] else ""
        style = "" if stage["answered"] else "dim"
        table.add_row(
            stage["name"], Text(stage["encoder"]), Text(says), sure, f"{stage['milliseconds']:.2f}", part, style=style
        )
    return table


def _part(stage: Values) -> str:
    """What a stage had to do with the answer. One that was sure and did not answer may not, in the language of the text."""
    if stage["answered"]:
        return "answered"
    if not stage["asked"]:
        return "not asked"
    return "was not sure" if max(stage["probabilities"].values()) < stage["sure"] else "not its language"


def _sentence(features: Values) -> Text:
    """The text, what speaks for the domain in green and what against in red, the strongest in bold."""
    greatest = max((abs(piece["effect"]) for piece in features["pieces"]), default=0.0)
    sentence = Text()
    for piece in features["pieces"]:
        word = piece["text"].rstrip()
        share = abs(piece["effect"]) / greatest if greatest else 0.0
        colour = "green" if piece["effect"] > 0 else "red"
        style = f"bold {colour}" if share >= STRONG else colour if share >= WEAK else ""
        sentence.append(word, style)
        sentence.append(piece["text"][len(word) :])
    return sentence


def _words(features: Values) -> Table:
    table = _table("", "")
    for name, colour, pieces in (
        ("for", "green", features["supporting"]),
        ("against", "red", features["opposing"]),
    ):
        effects = {
            piece["text"].strip(): piece["effect"] for piece in reversed(pieces)
        }  # of those said twice the strongest
        words = [f"{word} {effect:+.2f}" for word, effect in reversed(effects.items())]
        table.add_row(Text(name, colour), Text("\n".join(_filled(words)) or "nothing much"))
    return table


def _filled(words: Sequence[str]) -> Iterator[str]:
    """The words in lines that fit beside their heading, none of them torn from its figure."""
    line = ""
    for word in words:
        if line and cell_len(line) + 3 + cell_len(word) > WIDTH - len("  against  "):
            yield line
            line = ""
        line += f"   {word}" if line else word
    yield line


def _neighbours(examples: Sequence[Values]) -> Table:
    table = _table("cosine", "domain", "", "")
    for example in examples:
        text = Text(example["text"], no_wrap=True, overflow="ellipsis")
        table.add_row(f"{example['similarity']:.3f}", Text(example["domain"]), Text(example["language"]), text)
    return table


def _turns(turns: Sequence[Values]) -> Table:
    table = _table("", "the user's turn", "alone", "believed", "expert", "reason")
    for number, turn in enumerate(turns, 1):
        text = Text(turn["text"], no_wrap=True, overflow="ellipsis")
        alone = turn["doubt"] or _most_probable(turn["alone"])
        table.add_row(
            str(number),
            text,
            alone,
            _most_probable(turn["belief"]),
            Text(turn["expert"] or "nobody"),
            turn["reason"] or "",
        )
    return table


def _most_probable(by_domain: Mapping[str, float]) -> str:
    domain = max(by_domain, key=by_domain.__getitem__)
    return f"{domain} {by_domain[domain]:.2f}"


def _weighings(talk: Values) -> Iterator[str]:
    """Each turn at which another expert would have been taken, and whether it was worth it."""
    for number, turn in enumerate(talk["turns"], 1):
        if turn["weighing"]:
            yield f"turn {number}: {_weighed(turn['weighing'])}"
    if talk["continues"]:
        weighing = talk["weighing"]
        yield "then the answer goes on: the expert stays" + (f", {_weighed(weighing)}" if weighing else "")


def _weighed(weighing: Values) -> str:
    gain = f"{weighing['wanted']} would gain {weighing['gain']:.3f} over {weighing['kept']}"
    if weighing["cost"] is None:
        return f"though {gain}"
    if weighing["saves"]:
        return f"{gain}, and is so much cheaper that it pays: switched"
    sign, then = (">", "switched") if weighing["switched"] else ("≤", "kept")
    return f"{gain} {sign} {weighing['cost']:.3f}, the cost of a switch: {then}"


def _experts(experts: Sequence[Values]) -> Table:
    """Those that could be chosen first, each with its arithmetic; then the refused."""
    latencies = any(expert["latency_seconds"] is not None for expert in experts)
    table = _table("", "expected", "price", *(["first token"] if latencies else []), "quality × probability")
    for expert in sorted(experts, key=lambda e: (e["refused"] is not None, -(e["expected_quality"] or 0))):
        seconds = expert["latency_seconds"]
        known = [f"{seconds:.2f} s" if seconds is not None else ""] if latencies else []
        quality = "" if expert["expected_quality"] is None else f"{expert['expected_quality']:.3f}"
        about = "≈" if expert["price_estimated"] else ""
        price = "" if expert["price"] is None else f"{about}{expert['price']:.3g}"
        style = "bold" if expert["chosen"] else "dim" if expert["refused"] else ""
        mark = "▸ " if expert["chosen"] else "  "
        table.add_row(Text(mark + expert["id"]), quality, price, *known, _arithmetic(expert), style=style)
    return table


def _arithmetic(expert: Values) -> Text:
    text = Text(expert["arithmetic"].rpartition(" = ")[0])  # the sum has a column of its own
    if expert["language_bonus"]:
        text.append(f"  (its own language: each quality + {expert['language_bonus']:g})")
    if expert["refused"]:
        text.append(("\n" if expert["arithmetic"] else "") + f"refused: {expert['refused']}", "yellow")
    return text


def _notes(policy: Values | None) -> Text:
    notes = ["Prices in USD per million tokens, three of input for one of output."]
    if policy:
        notes.append(f"Below a confidence of {policy['floor']:g}, {policy['fallback']} answers as the fallback.")
    return Text(" ".join(notes), "dim")


def _table(*columns: str) -> Table:
    """Right-justified where figures stand."""
    figures = ("expected", "price", "first token", "cosine", "sure from", "ms")
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), show_header=any(columns))
    for name in columns:
        table.add_column(name, justify="right" if name in figures else "left")
    return table
