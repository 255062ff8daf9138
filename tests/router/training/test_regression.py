"""How two routers are held against each other: on the same prompts, over the domains that both know."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from router.artifact import Artifact, load_artifact, publish_artifact, read_manifest
from router.dataset import Row
from router.training.regression import Regression, regression
from router.training.train import Recipe, train
from tests.fakes.corpora import numbered_corpus, prompts

RECIPE = Recipe("tiny", "linear", "temperature", None)
CORPUS = numbered_corpus(3)


@pytest.fixture(scope="module")
def trained(tiny_router: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Routers by what was added to the corpus: nothing; another domain; and then the same domain once more by another name."""
    own = [Row(f"{prompt} and zebras", "zoo") for prompt in prompts("math")]
    twin = [Row(row.text, "fair") for row in own]
    made = {}
    for name, rows in {"plain": CORPUS, "zoo": [*CORPUS, *own], "twin": [*CORPUS, *own, *twin]}.items():
        folder = Path(shutil.copytree(tiny_router, tmp_path_factory.mktemp("routers") / name))
        train(rows, RECIPE, folder)
        made[name] = load_artifact(folder)
    return made


def measured(rows: Sequence[Row]) -> int:
    return sum(row.held_out for row in rows)


def test_a_router_loses_nothing_to_itself(trained: dict[str, Artifact]) -> None:
    found = regression(trained["plain"], trained["plain"], CORPUS)
    assert found is not None
    assert (found.lost, found.rows) == (0.0, measured(CORPUS))
    assert found.before > 0.9


def test_a_domain_of_ones_own_counts_by_its_examples_and_a_new_one_not_at_all(trained: dict[str, Artifact]) -> None:
    zoo = [*CORPUS, *(Row(f"{prompt} and zebras", "zoo") for prompt in prompts("math"))]
    both = regression(trained["zoo"], trained["zoo"], zoo)
    new = regression(trained["plain"], trained["zoo"], zoo)
    assert both is not None
    assert new is not None
    assert (both.rows, new.rows) == (measured(CORPUS) + len(prompts("math")), measured(CORPUS))
    assert new.lost == pytest.approx(0.0, abs=0.02)


def test_a_domain_that_takes_the_prompts_of_another_is_told_by_the_one_that_loses(trained: dict[str, Artifact]) -> None:
    own = [Row(f"{prompt} and zebras", "zoo") for prompt in prompts("math")]
    found = regression(trained["zoo"], trained["twin"], [*CORPUS, *own])
    assert found is not None
    assert found.lost > 0.02
    assert found.worst == "zoo"
    assert found.worst_after < found.worst_before
    assert "most in zoo: " in str(found)


def test_without_a_prompt_that_both_know_there_is_no_figure(trained: dict[str, Artifact]) -> None:
    assert regression(trained["plain"], trained["zoo"], [Row("never seen", "code")]) is None


def test_figures_are_told_as_they_were_and_are() -> None:
    text = str(Regression(0.97, 0.9, 400, "bio", 0.98, 0.8))
    assert text == "macro-F1 on 400 prompts of the old domains 0.970 → 0.900; most in bio: 0.980 → 0.800"


def test_what_is_published_is_whole_and_what_was_there_is_gone(trained: dict[str, Artifact], tmp_path: Path) -> None:
    folder = tmp_path / "router"
    for name in ("plain", "zoo"):
        source = Path(shutil.copytree(trained[name].folder, tmp_path / name))
        assert publish_artifact(source, folder) == read_manifest(source)
        shutil.rmtree(source)
        assert load_artifact(folder).name == trained[name].name
    assert len(list(folder.glob("heads-*.npz"))) == 1
