"""What a person reads: an explanation on a terminal of 100 columns."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, Group

from gateway.commands.explained import rendered
from router.decision import Asked, Overrides, Query
from router.explaining.explain import Explainer
from router.fleet import EMPTY_FLEET, Fleet
from router.routing import Router
from tests.fakes.corpora import trained_on
from tests.fakes.encoders import spoken_router, told_router
from tests.fakes.fleets import fleet, price
from tests.fakes.memory import router_of

EXPERTS: dict[str, dict[str, Any]] = {
    "coder": {"domains": {"code": 0.9, "math": 0.5}, "price": price(1), "model": "[red]Coder[/red]-7B"},
    "sensei": {"domains": {"general": 0.95}, "languages": ["ja"]},
    "general": {"domains": {"general": 0.9}, "price": price(0.25)},
}
FILE = fleet(EXPERTS, floor=0.55, router={"fallback": "general"})
ON_CODE = "code=0.9 general=0.1"


def told(router: Router, query: Query, fleet: Fleet = EMPTY_FLEET) -> dict[str, Any]:
    decision = router.decide(query, fleet)
    explanation = Explainer(router, lambda: trained_on("code", 3)).explain(query, decision, fleet)
    model = router.file.experts[decision.expert].model
    return decision.described() | {"model": model, "explanation": explanation.described()}


def screen(document: dict[str, Any], colours: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=100, force_terminal=colours, color_system="standard" if colours else None, _environ={}
    )
    console.print(Group(*rendered(document)), highlight=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def section(text: str, heading: str) -> list[str]:
    """The lines under a heading."""
    return text.partition(f"\n{heading}  ")[2].partition("\n\n")[0].splitlines()[1:]


def test_every_part_has_its_heading_and_the_reason_comes_first() -> None:
    lines = screen(told(spoken_router(FILE), Query(ON_CODE, earlier=(ON_CODE,)))).splitlines()
    assert lines[0].split() == ["coder", "[red]Coder[/red]-7B"]
    assert lines[1].startswith("coder has the highest expected quality, 0.8")
    assert lines[2].startswith("reason best · code 0.9")
    headings = [line.split("  ")[0] for line in lines[3:] if line and line[0] != " "]
    assert headings == [
        "probabilities", "stages", "strongest features", "nearest training prompts", "conversation", "experts",
    ]  # fmt: skip


def test_the_arithmetic_of_every_expert_stands_in_its_line_the_chosen_marked_the_refused_last() -> None:
    document = told(told_router(FILE), Query(f"{ON_CODE} language=de"), Fleet(latency={"coder": 0.25}))
    header, coder, general, sensei, refusal, *_ = section(screen(document), "experts")
    assert header.split() == ["expected", "price", "first", "token", "quality", "×", "probability"]
    assert " ".join(coder.split()) == "▸ coder 0.850 1 0.25 s 0.90×0.90 code + 0.40×0.10 general + …"
    assert general.split()[:3] == ["general", "0.630", "0.25"]
    assert sensei.split()[:2] == ["sensei", "0.455"]
    assert refusal.strip() == "refused: answers only in ja"
    better = section(screen(told(told_router(FILE), Query("general=1 language=de"))), "experts")
    assert [line.split()[0] for line in better[1:4]] == ["▸", "coder", "sensei"]


def test_a_specialists_bonus_is_told_where_it_counts() -> None:
    lines = section(screen(told(told_router(FILE), Query("general=1 language=ja"))), "experts")
    assert [("its own language" in line) for line in lines[1:4]] == [True, False, False]


def test_the_domains_are_listed_by_probability_with_bars() -> None:
    text = screen(told(spoken_router(FILE), Query("math=0.6 code=0.3 general=0.1")))
    lines = text.partition("\nprobabilities\n")[2].splitlines()[:3]
    assert [line.split()[:2] for line in lines] == [["math", "0.600"], ["code", "0.300"], ["general", "0.100"]]
    assert [line.count("█") for line in lines] == [18, 9, 3]


@pytest.mark.parametrize(
    ("code", "asked", "answered", "part"),
    [
        (0.7, True, False, "was not sure"),
        (0.95, True, False, "not its language"),
        (0.95, True, True, "answered"),
        (0.95, False, False, "not asked"),
    ],
)
def test_a_stage_says_why_it_did_not_answer(code: float, asked: bool, answered: bool, part: str) -> None:
    document = told(spoken_router(FILE), Query(ON_CODE))
    stage = {"name": "static", "encoder": "cheap", "sure": 0.9, "milliseconds": 0.1}
    stage |= {"probabilities": {"code": code, "general": 1 - code}, "asked": asked, "answered": answered}
    document["explanation"]["stages"] = [stage]
    (_, line) = section(screen(document), "stages")
    assert line.endswith(part)


def test_what_speaks_for_and_against_is_listed_and_coloured_in_the_sentence() -> None:
    document = told(told_router(FILE), Query("code=0.9 general=0.1 language=en"))
    sentence, supporting, opposing = section(screen(document), "strongest features")
    assert sentence.strip() == "code=0.9 general=0.1 language=en"
    assert supporting.split()[:2] == ["for", "code=0.9"]
    assert opposing.split()[:2] == ["against", "general=0.1"]
    coloured = screen(document, colours=True)
    assert "\x1b[1;32mcode=0.9\x1b[0m \x1b[1;31mgeneral=0.1\x1b[0m language=en" in coloured


def test_a_conversation_is_told_turn_by_turn_with_what_a_switch_is_worth() -> None:
    file = fleet(
        {"coder": {"domains": {"code": 0.8, "general": 0.6}}, "general": {"domains": {"general": 0.8}}},
        router={"fallback": "general"},
    )
    asked = (Asked(0, 10), Asked(8000, 8010))
    query = Query("code=0.38 general=0.62", earlier=("code=0.6 general=0.4",), asked=asked)
    _, first, second, weighing = section(screen(told(spoken_router(file), query)), "conversation")
    assert first.split() == ["1", "code=0.6", "general=0.4", "code", "0.60", "code", "0.60", "coder", "best"]
    assert second.split()[-2:] == ["coder", "sticky"]
    assert "general would gain 0.0" in weighing
    assert weighing.endswith("≤ 0.100, the cost of a switch: kept")


def test_a_switch_for_the_price_is_told_as_one() -> None:
    file = fleet(
        {
            "big": {"domains": {"code": 0.95, "general": 0.92}, "price": price(9)},
            "small": {"domains": {"general": 0.9}, "price": price(0.1)},
        }
    )
    text = screen(told(spoken_router(file), Query("general=1", "auto:cheap", earlier=("code=1",))))
    weighing = section(text, "conversation")[-1]
    assert weighing.strip() == "turn 2: small would gain -0.020 over big, and is so much cheaper that it pays: switched"


def test_of_an_expert_asked_for_by_name_only_the_experts_are_listed() -> None:
    text = screen(told(spoken_router(FILE), Query("whatever", "coder")))
    assert "by name" in text
    assert [line for line in text.splitlines()[3:] if line and line[0] != " "] == ["experts"]


def test_where_the_domain_is_given_nothing_was_classified() -> None:
    text = screen(told(spoken_router(FILE), Query("whatever", overrides=Overrides(domain="math"))))
    assert "nothing classified" in text
    assert "\nstages" not in text


@pytest.mark.parametrize(
    "hostile", ["\x1b[31mred\x1b]0;title\x07", "\x9b2J\x08\x7f\u202ertl\ud800", "\r\n\x0b\x0c\x85\u2028"]
)
def test_nothing_of_a_prompt_is_obeyed_by_the_terminal(hostile: str) -> None:
    text = screen(told(router_of(FILE), Query(f"{hostile} code", earlier=(f"code {hostile}",))))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert text.encode("utf-8")


def test_markup_in_a_prompt_is_text() -> None:
    prompt = "[bold red]x[/bold red] [/] [link=http://x]y code"
    lines = screen(told(router_of(FILE), Query(prompt, earlier=(prompt,)))).splitlines()
    assert [prompt in line for line in lines].count(True) == 3  # the sentence and the two turns


@pytest.mark.parametrize("word", ["w" * 300, "漢字" * 100, "ကျွန်တော်" * 30])
def test_no_line_is_wider_than_the_terminal(word: str) -> None:
    text = screen(told(router_of(FILE), Query(f"{word} code", earlier=(f"code {word}",))))
    assert max(map(cell_len, text.splitlines())) <= 100
