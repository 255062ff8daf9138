"""moe-gateway evaluate."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, provisioned
from gateway.console import err, fail, out, print_json, shown_progress

if TYPE_CHECKING:
    from router.dataset import Row
    from router.measuring.requirements import Requirement
    from router.routing import Router

MOST_DOMAINS = 6  # whose confusion fits on a line of a terminal
MOST_SLICES = 8
TIMED = {
    "all": "all", "typical": "40 to 80 tokens", "request": "inside a request", "typical_request": "… of 40 to 80 tokens",
}  # fmt: skip


def evaluate(
    file: Annotated[Path, typer.Argument(help="JSON lines, gzipped or not, with domain and prompt or messages.")],
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    require: Annotated[
        list[str] | None, typer.Option("--require", metavar="NAME>=VALUE", help="Exit status 1 where it is not so.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots as well.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the file's rows: no perturbed copies, latency or baselines.")
    ] = False,
    copies: Annotated[
        int | None, typer.Option("--copies", min=0, help="How many rows are copied carelessly; 300, with --quick 0.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the router on labelled prompts.

    Example: moe-gateway evaluate prompts.jsonl.gz --html report.html
    Example: moe-gateway evaluate prompts.jsonl --require 'plain.f1>=0.95' --require 'flips<=0.04'
    """
    requirements = _requirements(require or [])
    rows = _rows(file)
    router = provisioned(config, state)
    _foresee(requirements, rows, router, quick)
    document = _measured(router, rows, quick, copies)
    if html:
        _write_page(html, document, file, requirements)
    print_json(document) if as_json else print_tables(document)
    _hold(requirements, document)


@contextmanager
def _refused() -> Iterator[None]:
    """Leaves with status 2 and what is wrong with a requirement."""
    from router.explaining.explanation import visible
    from router.measuring.requirements import RequirementError

    try:
        yield
    except RequirementError as error:
        raise typer.BadParameter(visible(str(error)), param_hint="--require") from None


def _requirements(texts: Sequence[str]) -> list[Requirement]:
    from router.measuring.requirements import Requirement

    with _refused():
        return [Requirement.parse(text) for text in texts]


def _rows(file: Path) -> list[Row]:
    from router.dataset import read_rows

    if not file.is_file():
        fail(f"there is no {file}")
    rows = list(read_rows(file))
    if not rows:
        fail(f"{file} has no rows")
    return rows


def _foresee(requirements: Sequence[Requirement], rows: Sequence[Row], router: Router, quick: bool) -> None:
    """Leaves with status 2 where a requirement names what measuring these rows cannot give."""
    from router.measuring.requirements import GROUPS, SLOW_GROUPS, foresee

    with _refused():
        groups = GROUPS if quick else GROUPS | SLOW_GROUPS
        foresee(requirements, {row.part for row in rows}, router.artifact.manifest.domains, groups)


def _measured(router: Router, rows: Sequence[Row], quick: bool, copies: int | None) -> dict[str, Any]:
    from gateway.commands.timed import request_latency
    from router.dataset import training_rows
    from router.measuring.evaluation import Measurement

    with shown_progress() as progress:
        measurement = Measurement(router, rows, progress)
        document = measurement.document(() if quick else training_rows(router.file), quick, copies)
        if not quick:
            document["latency"] |= request_latency(measurement.fresh(), measurement.timed_texts(), progress)
    return document


def _hold(requirements: Sequence[Requirement], document: Mapping[str, Any]) -> None:
    """Leaves with status 1 and a line for each requirement that is not met, with 2 where one names no figure."""
    from router.explaining.explanation import visible
    from router.measuring.requirements import figures_of, misses

    with _refused():
        missed = misses(requirements, figures_of(document))
    if missed:
        fail("\n".join(map(visible, missed)))


def _write_page(path: Path, document: Mapping[str, Any], file: Path, requirements: Sequence[Requirement]) -> None:
    from router.measuring.report import About, page

    when = datetime.datetime.now(datetime.UTC).strftime("%d %B %Y, %H:%M UTC")
    path.write_text(page(document, About(file.name, when), requirements), "utf-8")
    err.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)


def print_tables(document: Mapping[str, Any]) -> None:
    """The evaluation on a terminal of 100 columns."""
    for table in (_parts(document), _domains(document), _baselines(document), _robustness(document), _slices(document)):
        if table.row_count:
            out.print(table, "", sep="\n", highlight=False)
    talks, decisions = document["conversation"], document["decisions"]
    if talks["steps"]:
        _line("conversations", "; ".join(_bounces(talks)))
    for name in ("reasons", "stages"):
        _line(name, ", ".join(f"{key} {_percent(share)}" for key, share in decisions[name].items()))
    if decisions["unanswered"]:
        _line("unanswered", _percent(decisions["unanswered"]))
    if "latency" in document:
        _print_latency(document["latency"])


def _bounces(talks: Mapping[str, Any]) -> Iterator[str]:
    yield f"bounce rate {_percent(talks['bounce'])} of {talks['steps']} steps"
    same, changing = talks["one_domain"], talks["changing"]
    if same["steps"]:
        yield f"{_percent(same['bounce'])} of {same['steps']} where the domain stays"
    if changing["steps"]:
        yield f"{_percent(changing['followed'])} of {changing['changes']} changes of domain followed"


def _line(name: str, text: str) -> None:
    out.print(f"[b]{name}[/b]: {escape(text)}", highlight=False, soft_wrap=True)


def _name(text: str) -> str:
    """A name from the measured file or of an expert, on one line: nothing in it is obeyed, by the terminal or as markup."""
    from router.explaining.explanation import line_of

    return escape(line_of(text))


def _print_latency(latency: Mapping[str, Any]) -> None:
    cores = "one core" if latency["cores"] == 1 else f"{latency['cores']} cores"
    table = _table(f"milliseconds, one at a time, {cores}", "prompts", "p50", "p90", "p99")
    for name, f in latency.items():
        if isinstance(f, Mapping):
            label = TIMED.get(name, f"{name} stage")
            table.add_row(label, str(f["rows"]), *(f"{f[p]:.3g}" for p in ("p50_ms", "p90_ms", "p99_ms")))
    out.print("", table, "", sep="\n", highlight=False)
    if latency["throughput"]:
        _line("throughput", f"{latency['throughput']:,.0f} prompts a second, 64 at once")


def _parts(document: Mapping[str, Any]) -> Table:
    table = _table("part", "rows", "accuracy", "macro-F1", "by source", "ECE", "flips", "quality lost")
    for name, part in [("every row", document["all"]), *document["parts"].items()]:
        table.add_row(
            _name(name), str(part["rows"]), _share(part["accuracy"]), _share(part["f1"]), _share(part["source_accuracy"]),
            _share(part["ece"]), _share(part["flips"]), f"{part['quality_lost']:.4f}",
        )  # fmt: skip
    return table


def _domains(document: Mapping[str, Any]) -> Table:
    """Precision, recall, F1, and what the rows of each domain were given."""
    domains, whole = document["domains"], document["all"]
    given = [f"→ {_name(d)}" for d in domains] if len(domains) <= MOST_DOMAINS else []
    table = _table("domain", "rows", "precision", "recall", "F1", *given)
    for i, (name, f) in enumerate(whole["per_domain"].items()):
        counts = [str(count) for count in whole["confusion"][i]] if given else []
        table.add_row(_name(name), str(f["rows"]), *(_share(f[key]) for key in ("precision", "recall", "f1")), *counts)
    return table


def _baselines(document: Mapping[str, Any]) -> Table:
    """Accuracy of the router and of each baseline, part by part."""
    parts = list(document["parts"])
    table = _table("accuracy", "every row", *map(_name, parts), "bounce", "quality lost")
    if "baselines" in document:
        own = {"all": document["all"], "parts": document["parts"], "bounce": document["conversation"]["bounce"]}
        for name, f in {"this router": own, **document["baselines"]}.items():
            shares = [_share(f["all"]["accuracy"]), *(_share(f["parts"][part]["accuracy"]) for part in parts)]
            table.add_row(name.replace("_", " "), *shares, _share(f["bounce"]), f"{f['all']['quality_lost']:.4f}")
    return table


def _robustness(document: Mapping[str, Any]) -> Table:
    table = _table("written carelessly", "copies", "rows", "accuracy before", "after", "flips")
    for name, f in document["robustness"]["made"].items():
        shares = (_share(f[key]) for key in ("accuracy_before", "accuracy", "flips"))
        table.add_row(name.replace("_", " "), "made here", str(f["rows"]), *shares)
    for name, f in document["robustness"]["own"].items():
        table.add_row(_name(name.replace("_", " ")), "in the file", str(f["rows"]), "", "", _share(f["flips"]))
    return table


def _slices(document: Mapping[str, Any]) -> Table:
    """The weakest of the larger slices of each kind that has more than one."""
    table = _table("weakest slices", "of", "rows", "accuracy", "95 % between")
    for kind in ("language", "style", "length", "stage"):
        slices = document["slices"].get(kind, {})
        if len(slices) > 1:
            for name, f in sorted(slices.items(), key=lambda item: item[1]["high"])[:MOST_SLICES]:
                between = f"{_share(f['low'])} and {_share(f['high'])}"
                table.add_row(_name(name), kind, str(f["rows"]), _share(f["accuracy"]), between)
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
