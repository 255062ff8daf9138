from __future__ import annotations

from typing import Any, get_args

import pytest

from router.decision import Candidate, Decision, Doubt, Overrides, Query, Reason, Scores, Switch
from router.experts import ExpertsFile
from router.policy import POLICIES, State
from router.reasons import RULES, Case, Weighing, why
from tests.fakes.fleets import fleet, price

FILE = fleet({"coder": {"domains": {"code": 0.9}, "price": price(2)}, "general": {"domains": {"general": 0.9}}}, 0.55)


def case(
    reason: Reason,
    expert: str = "coder",
    expected: dict[str, float] | None = None,
    scores: Scores | None = None,
    file: ExpertsFile = FILE,
    policy: str = "auto",
    query: Query | None = None,
    weighing: Weighing | None = None,
    refused: dict[str, str] | None = None,
    switched: Switch | None = None,
    doubt: Doubt | None = None,
) -> Case:
    able = {"coder": 0.8, "general": 0.5} if expected is None else expected
    scored = scores or Scores({"code": 0.7, "general": 0.3}, "static")
    candidates = tuple(Candidate(e, able.get(e), None, (refused or {}).get(e)) for e in file.experts)
    previous = None if switched is None else "general" if expert == "coder" else "coder"
    decision = Decision(expert, reason, (), scored, candidates, "a", 0.001, switched, previous, doubt)
    return Case(file, query or Query("x"), decision, policy, State(file, scored, able), weighing)


def prices(coder: float, general: float) -> ExpertsFile:
    return fleet(
        {
            "coder": {"domains": {"code": 0.9}, "price": price(coder)},
            "general": {"domains": {"general": 0.9}, "price": price(general)},
        }
    )


SPEAKING = fleet({"coder": {"domains": {"code": 0.9}, "languages": ["sw"]}, "general": {"domains": {"general": 0.9}}})
BEST = "coder has the highest expected quality, 0.800; next is general with 0.500."


def test_every_reason_has_a_sentence_of_its_own() -> None:
    sentences = {reason: why(case(reason)) for reason in get_args(Reason)}
    assert len(set(sentences.values())) == len(sentences)
    assert all(sentence.endswith(".") and "None" not in sentence for sentence in sentences.values())


def test_every_policy_that_is_built_in_has_its_rule() -> None:
    assert set(RULES) == {name for name in POLICIES if name in ("auto", "auto:cheap", "auto:best")}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (case("best"), "coder has the highest expected quality, 0.800; next is general with 0.500."),
        (
            case("best", expected={"coder": 0.8, "general": 0.79}),
            "coder has the highest expected quality, 0.800; of those within 0.02 of it (general) none is cheaper.",
        ),
        (
            case("best", expected={"coder": 0.8, "general": 0.79}, policy="auto:best"),
            "coder has the highest expected quality, 0.800; next is general with 0.790.",
        ),
        (case("best", expected={"coder": 0.8}), "coder has the highest expected quality, 0.800."),
        (
            case("cheapest", "general", {"coder": 0.8, "general": 0.75}, file=prices(2, 0.5), policy="auto:cheap"),
            "general, at 0.5 USD per million tokens, is the cheapest of those whose expected quality is within 0.1 of the "
            "highest: 0.750, where coder has 0.800 at 2 USD per million tokens.",
        ),
        (
            case("cheapest", policy="auto:cheap"),
            "coder, at 2 USD per million tokens, is the cheapest of those whose expected quality is within 0.1 of the "
            "highest, which is its own, 0.800.",
        ),
        (
            case("tie", "general", {"coder": 0.8, "general": 0.79}, file=prices(2, 0.5)),
            "The expected quality of general, 0.790, is within 0.02 of the highest (coder, 0.800) and it is cheaper: "
            "0.5 USD per million tokens, not 2 USD per million tokens.",
        ),
        (
            case("tie", "general", {"coder": 0.8, "general": 0.79}, file=prices(1, 1)),
            "The expected quality of general, 0.790, is within 0.02 of the highest (coder, 0.800); it costs as much and "
            "is faster.",
        ),
        (
            case("low_confidence", "general", scores=Scores({"code": 0.52, "general": 0.48}, "static")),
            "The most probable domain, code, has 0.520, below the confidence floor of 0.55, so the fallback expert answers.",
        ),
        (
            case("unreadable_language", "general", scores=Scores({"code": 1.0}, "static", language="sw")),
            "The text seems to be in a language that the encoder was not taught (sw), so the fallback expert answers.",
        ),
        (
            case("unreadable_language", scores=Scores({"code": 1.0}, "static", language="sw"), file=SPEAKING),
            "The text seems to be in a language that the encoder was not taught (sw), so coder, a specialist of its "
            "language, answers.",
        ),
        (
            case("out_of_distribution"),
            "The text is nothing that the router can judge (empty, gibberish or encoded data), and the fallback expert "
            "general is not able; coder is the one that the policy takes then.",
        ),
        (
            case("only_capable", expected={"coder": 0.8}, refused={"general": "cannot do tools"}),
            "coder is the only expert that is able to answer this: general cannot do tools.",
        ),
        (
            case("only_capable", expected={"coder": 0.8}, refused={"general": "context window of 9 tokens"}),
            "coder is the only expert that is able to answer this: general (context window of 9 tokens).",
        ),
        (
            case("pinned", query=Query("x", overrides=Overrides(domain="code"))),
            "The request says that its domain is code, so nothing was classified; coder is chosen for it, with an expected "
            "quality of 0.800.",
        ),
        (
            case("sticky", weighing=Weighing("coder", "general", 0.021, 0.0345, False)),
            "coder had the turn before; general would be better by 0.021 in expected quality, which is not more than the "
            "0.035 that it has to gain to be worth the loss of the cache.",
        ),
        (
            case("sticky", weighing=Weighing("coder", "general", -0.02, 0.03, False)),
            "coder had the turn before; general is cheaper, but not enough to pay for the loss of the cache.",
        ),
        (
            case("best", switched="topic", weighing=Weighing("general", "coder", 0.3, 0.03, True)),
            f"{BEST} coder takes the conversation over from general: it gains 0.300 in expected quality, more than the "
            "0.030 that the cache is worth.",
        ),
        (
            case("best", switched="topic", weighing=Weighing("general", "coder", 0.01, 0.03, True, saves=True)),
            f"{BEST} coder takes the conversation over from general: it is so much cheaper that this pays for the loss of "
            "the cache.",
        ),
        (
            case("best", switched="window", refused={"general": "context window of 9 tokens"}),
            f"{BEST} coder takes the conversation over from general, which is refused: context window of 9 tokens.",
        ),
        (case("best", switched="topic"), f"{BEST} coder takes the conversation over from general."),
        (
            case("best", doubt="out_of_distribution"),
            f"{BEST} The last turn by itself is nothing that the router can judge (empty, gibberish or encoded data); "
            "what was said before it counts.",
        ),
        (
            case("only_capable", doubt="out_of_distribution",
                 scores=Scores({"code": 1.0}, "static", "out_of_distribution")),
            "coder is the only expert that is able to answer this. The last turn by itself is nothing that the router can "
            "judge (empty, gibberish or encoded data).",
        ),
        (
            case("sticky", query=Query("x", continues=True), weighing=Weighing("coder", "general", 0.4, None, False)),
            "The request goes on with an answer under way (a tool's result or a retry), and coder began it.",
        ),
    ],
)  # fmt: skip
def test_a_sentence_has_the_figures_that_the_reason_was_made_from(given: Case, says: str) -> None:
    # 0.0345 is a hair below itself in binary or above: both roundings are right.
    assert why(given) in (says, says.replace("0.035", "0.034"))


def test_an_expert_asked_for_by_name_was_not_chosen() -> None:
    decision = Decision("coder", "pinned", (), None, (), "a", 0.0)
    assert why(Case(FILE, Query("x", "coder"), decision, "auto:coder", None)) == (
        "The request asks for coder by name, so nothing was chosen."
    )


def test_of_a_policy_that_another_package_adds_only_its_own_reason_is_told() -> None:
    assert why(case("cheapest", policy="auto:coin")) == (
        "The policy auto:coin, which another package adds, chose coder and gives as its reason: cheapest."
    )
    kept: Any = Weighing("coder", "general", 0.01, 0.03, False)
    assert why(case("sticky", policy="auto:coin", weighing=kept)).startswith("coder had the turn before;")


def test_sentences_about_scores_need_them() -> None:
    decision = Decision("general", "low_confidence", (), None, (), "a", 0.0)
    with pytest.raises(ValueError, match="without scores"):
        why(Case(FILE, Query("x"), decision, "auto", None))
