"""What a trial finds: a router is trained aside, measured beside the one that serves, tested, and only then published."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import pytest

from gateway.reloading import training
from gateway.reloading.training import judged
from gateway.reloading.trial import Refusal, Step, Task, Told, Verdict
from router.artifact import load_artifact, read_manifest
from router.errors import ArtifactError
from router.sources import Sources
from router.training.regression import Regression
from router.training.train import train
from tests.fakes.corpora import prompts, small_corpus

TESTS = """\
version: 1
tests:
  - {name: zebras, prompt: "What do cells and tissues do with lipids? and zebras", expert: keeper}
  - {prompt: Fix the parser in my Python function, expert: %s}
"""


def sources(source: str = "bio", margin: float = 0.02, domain: str = "zoo") -> Sources:
    examples = "\n".join(f'      - "{prompt} and zebras"' for prompt in prompts(source))
    text = f"""\
version: 1
router: {{retrain_margin: {margin}}}
domains:
  {domain}:
    examples:
{examples}
experts:
  keeper: {{model: m, domains: [{domain}], upstream: {{vllm: ["http://127.0.0.1:9/v1"]}}}}
  coder: {{model: m, domains: [code], upstream: {{vllm: ["http://127.0.0.1:9/v1"]}}}}
  general: {{model: m, domains: [general], upstream: {{vllm: ["http://127.0.0.1:9/v1"]}}}}
"""
    return Sources(Path("experts.yaml"), {"experts.yaml": text})


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.dataset.load_corpus", small_corpus)


@pytest.fixture(scope="module")
def served(tiny_router: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with the router of the small corpus, without any domain of one's own."""
    state = tmp_path_factory.mktemp("served")
    shutil.copytree(tiny_router, state / "router")
    from router.training.train import Recipe

    train(small_corpus(), Recipe("tiny", "linear", "temperature", "tiny-static"), state / "router")
    return state


@pytest.fixture
def state(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it; files are trained for with its encoders."""
    from router.training.train import Recipe

    recipe = Recipe("tiny", "linear", "temperature", "tiny-static")
    monkeypatch.setattr(Recipe, "of", staticmethod(lambda options: recipe))
    return Path(shutil.copytree(served, tmp_path / "state"))


def task(state: Path, tests: str | None = None, retrain: bool = True, force: bool = False, **about: object) -> Task:
    artifact = load_artifact(state / "router").name
    return Task(sources(**about), state, state / "router", artifact, retrain, tests, force)  # type: ignore[arg-type]


def judging(task: Task) -> tuple[Verdict | Refusal, list[Told]]:
    told: list[Told] = []
    return judged(task, told.append), told


def left(state: Path) -> list[str]:
    return [path.name for path in state.iterdir() if path.name.startswith(training.SCRATCH)]


def test_a_new_domain_is_trained_measured_and_published(state: Path) -> None:
    before = read_manifest(state / "router")
    verdict, told = judging(task(state, TESTS % "coder"))
    assert isinstance(verdict, Verdict)
    after = read_manifest(state / "router")
    assert (after.domains, verdict.folder) == ((*before.domains, "zoo"), state / "router")
    assert verdict.artifact == load_artifact(state / "router").name
    assert "of the old domains 1.000 → 1.000" in verdict.figures
    assert {message.step for message in told if isinstance(message, Step)} >= {"fitting the transformer stage"}
    assert left(state) == []


def test_a_router_that_does_old_domains_worse_is_refused_with_both_figures_unless_forced(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_manifest(state / "router")
    monkeypatch.setattr(training, "regression", lambda *_: Regression(0.97, 0.9, 400, "bio", 0.98, 0.8))
    verdict, _ = judging(task(state, margin=0.05))
    assert isinstance(verdict, Refusal)
    assert verdict.code == "worse_routing"
    assert (
        "0.970 → 0.900; most in bio: 0.980 → 0.800; router.retrain_margin allows a loss of 0.05" in verdict.problems[0]
    )
    assert (read_manifest(state / "router"), left(state)) == (before, [])
    forced, _ = judging(task(state, margin=0.05, force=True))
    assert isinstance(forced, Verdict)
    assert "allows a loss of 0.05" in forced.objections[0]
    assert "zoo" in read_manifest(state / "router").domains


def test_a_loss_within_the_margin_is_none(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "regression", lambda *_: Regression(0.97, 0.95, 400))
    verdict, _ = judging(task(state, margin=0.03))
    assert isinstance(verdict, Verdict)
    assert "0.950" in verdict.figures


def test_a_new_domain_that_swallows_an_old_one_is_found_out(state: Path) -> None:
    first, _ = judging(task(state))
    assert isinstance(first, Verdict)
    # The same examples under another name beside them: half of the old domain's prompts go there.
    text = sources().text
    lines = text.splitlines(keepends=True)
    examples = "".join(line for line in lines if "zebras" in line)
    both = text.replace("experts:\n", f"  fair:\n    examples:\n{examples}experts:\n").replace("[code]", "[code, fair]")
    wanted = task(state)
    wanted.sources = Sources(Path("experts.yaml"), {"experts.yaml": both})
    verdict, _ = judging(wanted)
    assert isinstance(verdict, Refusal)
    assert "most in zoo: 1.000 →" in verdict.problems[0]


def test_failing_routing_tests_are_named_and_refuse_it_unless_forced(state: Path) -> None:
    before = read_manifest(state / "router")
    verdict, _ = judging(task(state, TESTS % "general"))
    assert isinstance(verdict, Refusal)
    assert verdict.code == "tests_failed"
    (problem,) = verdict.problems
    assert problem.startswith("routes.test.yaml:4: went to coder, not to general")
    assert "Fix the parser" not in problem  # a prompt is nothing for a log
    assert (read_manifest(state / "router"), left(state)) == (before, [])
    forced, _ = judging(task(state, TESTS % "general", force=True))
    assert isinstance(forced, Verdict)
    assert forced.objections == verdict.problems


def test_a_test_that_has_a_name_is_called_by_it(state: Path) -> None:
    verdict, _ = judging(task(state, (TESTS % "coder").replace("keeper", "general")))
    assert isinstance(verdict, Refusal)
    assert verdict.problems[0].startswith("routes.test.yaml:3: 'zebras' went to keeper")


def test_where_nothing_is_to_be_trained_the_tests_are_run_on_what_serves(state: Path) -> None:
    judging(task(state))
    before = read_manifest(state / "router")
    verdict, told = judging(task(state, TESTS % "coder", retrain=False))
    assert isinstance(verdict, Verdict)
    assert (verdict.artifact, told) == (load_artifact(state / "router").name, [])
    assert read_manifest(state / "router") == before


def test_what_another_trial_left_behind_is_removed(state: Path) -> None:
    (state / f"{training.SCRATCH}dead").mkdir()
    judging(task(state))
    assert left(state) == []


def test_a_damaged_router_is_named(state: Path) -> None:
    wanted = task(state)
    (state / "router" / read_manifest(state / "router").heads_file).write_bytes(b"torn")
    with pytest.raises(ArtifactError, match=r"heads-\S+ is damaged"):
        judged(wanted, lambda message: None)


def test_a_disk_that_is_full_is_said_and_leaves_what_was_there(state: Path) -> None:
    before = read_manifest(state / "router")
    wanted, limits = task(state), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))  # as a disk with so much room
    try:
        refusal = training.outcome(wanted, lambda message: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refusal == Refusal("training_failed", ["the router cannot be written: file too large"])
    assert (read_manifest(state / "router"), left(state)) == (before, [])
    assert load_artifact(state / "router").name == wanted.artifact
