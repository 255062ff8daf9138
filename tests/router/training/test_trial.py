from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from router.artifact import PACKAGED
from router.experts import ExpertsFile, RouterOptions, parse_experts
from router.rerouting import silent
from router.training.provision import load_or_train
from router.training.trial import trial_router
from tests.fakes.corpora import prompts, small_corpus


def zoo(word: str = "zebras") -> ExpertsFile:
    """A file that adds a domain, with encoders that a state folder alone has."""
    examples = "\n".join(f'      - "{prompt} and {word}"' for prompt in prompts("bio"))
    text = f"""\
version: 1
domains:
  zoo:
    examples:
{examples}
experts:
  keeper: {{model: m, domains: [zoo], upstream: {{embedded: smollm2}}}}
  general: {{model: m, domains: [general], upstream: {{embedded: smollm2}}}}
"""
    return parse_experts(text).model_copy(update={"router": RouterOptions(encoder="tiny", static="tiny-static")})


def contents(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.fixture
def state(tiny_router: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of a gateway that has encoders of its own."""
    monkeypatch.setattr("router.dataset.load_corpus", small_corpus)
    shutil.copytree(tiny_router, tmp_path / "state" / "router")
    return tmp_path / "state"


def test_what_has_to_be_learnt_is_learnt_elsewhere_with_the_encoders_of_the_gateway(
    state: Path, tmp_path: Path
) -> None:
    before = contents(state)
    router = trial_router(zoo(), state, tmp_path / "scratch", silent)
    assert router.artifact.manifest.domains == ("code", "math", "bio", "general", "zoo")
    assert router.artifact.folder == tmp_path / "scratch" / "router"
    assert contents(state) == before


def test_what_the_gateway_has_learnt_already_is_not_learnt_again(state: Path, tmp_path: Path) -> None:
    load_or_train(zoo(), state, silent)
    steps: list[str] = []
    router = trial_router(zoo(), state, tmp_path / "scratch", lambda step, *_: steps.append(step))
    assert (router.artifact.folder, steps) == (state / "router", [])
    assert not (tmp_path / "scratch").exists()


def test_vectors_that_the_gateway_has_are_not_made_again(state: Path, tmp_path: Path) -> None:
    load_or_train(zoo(), state, silent)
    steps: list[tuple[str, int]] = []
    trial_router(zoo("llamas"), state, tmp_path / "scratch", lambda step, _, total: steps.append((step, total)))
    assert ("reading the corpus with tiny", len(prompts("bio"))) in steps  # the examples that are new, and no more


def test_a_gateway_that_has_learnt_nothing_leaves_the_packaged_router(tmp_path: Path) -> None:
    text = "version: 1\nexperts:\n  general: {model: m, domains: [general], upstream: {embedded: smollm2}}\n"
    router = trial_router(parse_experts(text), tmp_path / "none", tmp_path / "scratch", silent)
    assert router.artifact.folder == PACKAGED
    assert list(tmp_path.iterdir()) == []
