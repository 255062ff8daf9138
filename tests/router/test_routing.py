from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.artifact import PACKAGED, Artifact
from router.decision import Query
from router.errors import ArtifactError, NoExpertError
from router.experts import ExpertsFile, load_experts
from router.routing import Router
from tests.fakes.encoders import Spoken, saying, spoken_artifact, spoken_router
from tests.fakes.fleets import able, fleet, fleets, price, probabilities, queries

ROOT = Path(__file__).parents[2]
TRIO: dict[str, dict[str, Any]] = {
    "coder": {"domains": {"code": 0.9}, "fallbacks": ["general"], "capabilities": ["tools"], "price": price(1)},
    "counter": {"domains": {"math": 0.9}, "price": price(2)},
    "general": {"domains": {"general": 0.8}, "price": price(0.5)},
}
ON_CODE = "code=0.9 general=0.1"
ON_MATH = "math=0.9 general=0.1"
UNCLEAR = "code=0.4 math=0.3 general=0.3"


@pytest.fixture(scope="module")
def router() -> Router:
    return spoken_router(fleet(TRIO, floor=0.55, aliases={"gpt-4o-mini": "auto", "gpt-4": "coder"}))


@pytest.fixture(scope="module")
def shipped(packaged: Artifact) -> Router:
    return Router(load_experts(ROOT / "experts.yaml"), packaged)


def test_a_prompt_goes_to_the_expert_of_its_domain(router: Router) -> None:
    assert [router.decide(Query(text)).expert for text in (ON_CODE, ON_MATH, "general=1")] == [
        "coder",
        "counter",
        "general",
    ]


def test_a_decision_carries_probabilities_that_sum_to_one_in_the_order_of_the_domains(router: Router) -> None:
    scores = router.decide(Query(ON_CODE)).scores
    assert scores is not None
    assert list(scores.by_domain) == ["code", "math", "general"]
    assert scores.by_domain == pytest.approx({"code": 0.9, "math": 0.0, "general": 0.1}, abs=1e-5)
    assert (scores.domain, scores.stage) == ("code", "transformer")
    assert scores.confidence == pytest.approx(0.9)


def test_the_temperature_of_the_artifact_flattens_probabilities() -> None:
    (scores,) = spoken_router(fleet(TRIO), temperature=2.0).score_many(
        [saying({"code": 0.64, "math": 0.32, "general": 0.04})]
    )
    roots = {"code": 0.8, "math": 0.32**0.5, "general": 0.2}
    assert scores.by_domain == pytest.approx({d: r / sum(roots.values()) for d, r in roots.items()}, abs=1e-5)


def test_an_unclear_prompt_goes_to_the_fallback_and_says_why(router: Router) -> None:
    decision = router.decide(Query(UNCLEAR))
    assert (decision.expert, decision.reason) == ("general", "low_confidence")
    assert decision.scores is not None
    assert decision.scores.domain == "code"


def test_declared_fallbacks_come_first_then_the_others_best_first(router: Router) -> None:
    assert router.decide(Query(ON_CODE)).fallbacks == ("general", "counter")
    assert router.decide(Query("math=0.6 code=0.4")).fallbacks == ("general", "coder")
    assert router.decide(Query("general=0.9 math=0.1")).fallbacks == ("counter", "coder")


def test_a_declared_fallback_that_is_not_able_is_left_out(router: Router) -> None:
    decision = router.decide(Query(ON_CODE, needs=frozenset({"tools"})))
    assert (decision.expert, decision.reason, decision.fallbacks) == ("coder", "only_capable", ())


def test_every_expert_stands_in_the_arithmetic_refused_or_not(router: Router) -> None:
    decision = router.decide(Query(ON_CODE, needs=frozenset({"tools"})))
    assert [(c.expert, c.refused) for c in decision.candidates] == [
        ("coder", None),
        ("counter", "cannot do tools"),
        ("general", "cannot do tools"),
    ]
    assert decision.candidates[0].expected_quality == pytest.approx(0.9 * 0.9 + 0.1 * 0.4, abs=1e-5)


def test_a_request_that_nobody_can_answer_is_refused(router: Router) -> None:
    with pytest.raises(NoExpertError):
        router.decide(Query(ON_CODE, needs=frozenset({"audio"})))


def test_a_decision_names_the_artifact_and_takes_some_time(router: Router) -> None:
    decision = router.decide(Query(ON_CODE))
    assert decision.artifact == router.artifact.name == "beef"
    assert decision.seconds > 0


# Experts by name


def test_an_expert_that_is_asked_for_by_name_is_pinned_without_classifying(router: Router) -> None:
    encoder = router.artifact.encoder
    assert isinstance(encoder, Spoken)
    seen = len(encoder.seen)
    decision = router.decide(Query("not even words", requested_model="coder"))
    assert (decision.expert, decision.reason, decision.stage) == ("coder", "pinned", "none")
    assert decision.scores is None
    assert decision.fallbacks == ("general",)
    assert len(encoder.seen) == seen


def test_the_quick_way_decides_experts_by_name_and_nothing_else(router: Router) -> None:
    pinned = router.quick(Query("t", requested_model="coder"))
    assert pinned is not None
    assert pinned.expert == "coder"
    assert router.quick(Query(ON_CODE)) is None
    assert router.quick(Query(ON_CODE, requested_model="auto:best")) is None


def test_a_pinned_expert_answers_even_what_it_is_not_said_to_be_able_to(router: Router) -> None:
    assert router.decide(Query("t", requested_model="counter", needs=frozenset({"tools"}))).expert == "counter"


def test_the_fallbacks_of_a_pinned_expert_are_able_as_well(router: Router) -> None:
    assert router.decide(Query("t", requested_model="coder", needs=frozenset({"tools"}))).fallbacks == ()


@pytest.mark.parametrize(
    ("requested", "meant"),
    [
        ("auto", "auto"),
        ("auto:cheap", "auto:cheap"),
        ("coder", "coder"),
        ("gpt-4o-mini", "auto"),
        ("gpt-4", "coder"),
        ("Coder", None),
        ("auto:", None),
        ("", None),
        ("m", None),
    ],
)
def test_a_model_means_a_virtual_model_an_expert_or_what_its_alias_means(
    router: Router, requested: str, meant: str | None
) -> None:
    assert router.resolve(requested) == meant


# Many at once


def test_many_decisions_come_in_the_order_of_the_queries_from_one_batch() -> None:
    router = spoken_router(fleet(TRIO))
    asked = [Query(ON_MATH), Query("t", requested_model="coder"), Query(ON_CODE), Query("general=1")]
    assert [d.expert for d in router.decide_many(asked)] == ["counter", "coder", "coder", "general"]
    assert isinstance(router.artifact.encoder, Spoken)
    assert router.artifact.encoder.seen == [[ON_MATH, ON_CODE, "general=1"]]


def test_no_queries_get_no_decisions(router: Router) -> None:
    assert router.decide_many([]) == []
    assert router.score_many([]) == []


def test_threads_may_ask_the_same_router(router: Router) -> None:
    texts = [ON_CODE, ON_MATH, UNCLEAR, "general=1"] * 25
    barrier = threading.Barrier(4)

    def ask(part: int) -> list[str]:
        barrier.wait()
        return [router.decide(Query(text)).expert for text in texts[part::4]]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    assert answers == [["coder"] * 25, ["counter"] * 25, ["general"] * 25, ["general"] * 25]


@given(fleets(), probabilities(), st.data())
@settings(deadline=None, max_examples=80)
def test_the_chosen_expert_and_its_fallbacks_are_able_and_each_is_asked_once(
    file: ExpertsFile, by_domain: dict[str, float], pick: st.DataObject
) -> None:
    query = pick.draw(queries(text=saying(by_domain)))
    router = spoken_router(file)
    allowed = able(file, query)
    if not allowed:
        with pytest.raises(NoExpertError):
            router.decide(query)
        return
    decision = router.decide(query)
    assert decision.expert in allowed
    assert decision.expert not in decision.fallbacks
    assert sorted({decision.expert, *decision.fallbacks}) == sorted(allowed)
    assert len(decision.fallbacks) == len(allowed) - 1


@given(fleets(), st.data())
@settings(deadline=None, max_examples=40)
def test_a_pinned_expert_falls_back_to_able_ones_only(file: ExpertsFile, pick: st.DataObject) -> None:
    query = pick.draw(queries(model=st.sampled_from(sorted(file.experts))))
    decision = spoken_router(file).decide(query)
    assert decision.expert == query.requested_model
    assert decision.expert not in decision.fallbacks
    assert set(decision.fallbacks) <= able(file, query)


# Artifacts


@pytest.mark.parametrize("domains", [("code", "math"), ("code", "math", "general", "bio"), ("code", "math", "bio")])
def test_an_artifact_for_other_domains_is_refused_with_both(domains: tuple[str, ...]) -> None:
    with pytest.raises(
        ArtifactError, match=f"trained for {', '.join(domains)}, experts.yaml names code, math, general"
    ):
        Router(fleet(TRIO), spoken_artifact(domains))


def test_an_artifact_with_the_domains_in_another_order_is_as_good() -> None:
    router = Router(fleet(TRIO), spoken_artifact(("general", "math", "code")))
    assert [router.decide(Query(text)).expert for text in (ON_CODE, ON_MATH)] == ["coder", "counter"]


def test_loading_a_folder_without_a_router_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no trained router"):
        Router.load(fleet(TRIO), tmp_path)


@pytest.mark.parametrize(
    ("prompt", "expert"),
    [
        ("Write a Python function that reverses a linked list.", "coder"),
        ("TypeError: cannot read properties of undefined (reading 'map')", "coder"),
        ("Solve x^2 - 5x + 6 = 0.", "mathematician"),
        ("What does the mitochondrion do in a cell?", "biologist"),
        ("Recommend a good novel about the sea.", "general"),
        ("Tell me a joke about librarians.", "general"),
    ],
)
def test_the_shipped_router_sends_plain_prompts_to_the_right_experts(shipped: Router, prompt: str, expert: str) -> None:
    assert shipped.decide(Query(prompt)).expert == expert


@given(st.text(max_size=80))
@settings(deadline=None, max_examples=25)
def test_the_shipped_router_decides_any_text(shipped: Router, text: str) -> None:
    decision = shipped.decide(Query(text))
    assert decision.expert in shipped.file.experts
    assert decision.scores is not None
    assert sum(decision.scores.by_domain.values()) == pytest.approx(1)


# What serving imports

SERVE = """
import sys
from pathlib import Path
from router.routing import Router
before = set(sys.modules)
from router.experts import load_experts
from router.decision import Query
from router.artifact import PACKAGED
router = Router.load(load_experts(Path("experts.yaml")), PACKAGED)
assert router.decide(Query("Sort a list in Python.")).expert == "coder"
print("\\n".join(sorted({name.partition(".")[0] for name in set(sys.modules) | before})))
"""


def test_serving_a_decision_imports_nothing_of_training_nor_of_the_gateway() -> None:
    done = subprocess.run([sys.executable, "-c", SERVE], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"router", "onnxruntime", "tokenizers", "numpy"} <= imported
    training = {"torch", "sentence_transformers", "transformers", "sklearn", "scipy", "onnx", "onnxscript", "litellm"}
    serving = {"gateway", "fastapi", "starlette", "aiohttp", "httpx", "uvicorn", "prometheus_client"}
    assert imported & (training | serving) == set()


def test_the_packaged_router_lies_inside_the_package() -> None:
    assert PACKAGED == ROOT / "router" / "trained"
