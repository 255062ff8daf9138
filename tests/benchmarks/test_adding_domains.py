from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from router.artifact import load_artifact
from router.cascade import Cascade
from router.dataset import OWN_SET, Row, training_rows
from router.experts import parse_experts
from router.training.train import Recipe, train
from tests.benchmarks.adding_domains import OldDomains, Packaged, Texts, files_of, macro_f1, main, parsed
from tests.benchmarks.detector_methods import METHODS, Floats
from tests.benchmarks.domain_prompts import draws, experts_yaml, prompts_of
from tests.benchmarks.domain_tables import END, START
from tests.benchmarks.test_domain_tables import FIGURES


def cloud(seed: int, centre: int, rows: int, dimensions: int = 12) -> Floats:
    vectors = np.eye(dimensions)[centre] + np.random.default_rng(seed).normal(size=(rows, dimensions)) * 0.15
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="module")
def packaged() -> Packaged:
    return Packaged()


@pytest.mark.timeout(600)  # it trains, which takes minutes where others keep the machine busy
def test_the_quick_way_to_add_a_domain_tells_what_training_does(packaged: Packaged, tmp_path: Path) -> None:
    examples = {"legal": next(draws("legal", 10, 1)), "sql": next(draws("sql", 10, 1))}
    file = parse_experts(experts_yaml(examples))
    train(training_rows(file), Recipe.of(file.router), tmp_path)
    trained, quick = load_artifact(tmp_path), packaged.with_domains(examples)
    assert quick.domains == trained.manifest.domains
    texts = Texts.read([Row(text, "legal") for text in prompts_of("legal", "test")[:20]], packaged.encoders)
    told, sure = texts.told(quick.stages)
    wanted, surely = texts.told(trained.stages)
    assert told == pytest.approx(wanted, abs=0.01)
    assert (sure == surely).mean() > 0.9


def test_a_text_is_told_what_the_cascade_tells(packaged: Packaged) -> None:
    router = packaged.with_domains({"legal": next(draws("legal", 10, 1))})
    rows = [Row(text, "legal") for text in (*prompts_of("legal", "test")[:8], "2+2?", "write quicksort in rust")]
    told, sure = Texts.read(rows, packaged.encoders).told(router.stages)
    scores = Cascade(router.domains, router.stages).score_many([row.text for row in rows])
    assert told == pytest.approx(np.array([[s.by_domain[d] for d in router.domains] for s in scores]), abs=1e-5)
    assert [s.stage == "static" for s in scores] == sure.tolist()
    assert 0 < sure.sum() < len(sure)


def test_what_the_old_domains_lose_counts_only_moves_to_the_new_one(packaged: Packaged) -> None:
    own = [Row(text, "general", topic="law") for text in prompts_of("legal", "test")[:20]]
    other = [
        Row(text, "general", topic="food-home") for text in ("how long do i boil an egg", "sourdough starter smells")
    ]
    old = OldDomains(Texts.read([*own, *other], packaged.encoders))
    after = old.after(packaged.with_domains({"legal": next(draws("legal", 50, 1))}), "legal")
    assert after["inside"] == len(own)
    assert after["moved"] == after["moved_rightly"] > 5
    assert after["f1_any_move_wrong"] < after["f1"]
    assert old.before(packaged.artifact.stages)["rows"] == len(own) + len(other)


def test_a_move_counts_as_right_where_the_row_is_of_the_domain() -> None:
    law = Row("May he keep the ring?", "general", tags=frozenset({"mmlu:professional_law"}))
    rows = [law, Row("Hi", "general"), Row("2+2", "math"), Row("sort", "code"), Row("cell", "bio")]
    assert macro_f1(rows, ["legal", "general", "math", "code", "bio"], "legal") == 1
    assert macro_f1(rows, ["legal", "general", "math", "code", "bio"]) < 1
    assert macro_f1(rows, ["general", "legal", "math", "code", "bio"], "legal") < 1


@pytest.mark.parametrize("name", METHODS)
def test_every_way_to_detect_finds_what_its_examples_are_about(name: str) -> None:
    corpus = np.concatenate([cloud(centre, centre, 200) for centre in range(4)])
    chance = METHODS[name](corpus, cloud(10, 7, 10))
    assert chance(cloud(11, 7, 30)).min() > chance(corpus).max()
    assert (chance(cloud(11, 7, 30)) > 0.5).mean() > 0.9


def test_files_have_the_names_that_they_are_given_or_their_own() -> None:
    assert files_of(["own=a/b.jsonl", "c/d.jsonl.gz"]) == {"own": Path("a/b.jsonl"), "d.jsonl.gz": Path("c/d.jsonl.gz")}
    assert files_of([]) == {"own": OWN_SET}


def test_page_and_plot_come_from_the_figures_of_an_earlier_run(tmp_path: Path) -> None:
    """Without reading a prompt."""
    page, plot, kept = tmp_path / "page.md", tmp_path / "plot.svg", tmp_path / "figures.json"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n", "utf-8")
    kept.write_text(json.dumps(FIGURES), "utf-8")
    main(["--from-json", str(kept), "--page", str(page), "--plot", str(plot)])
    assert "old" not in page.read_text("utf-8")
    assert "| 10 | " in page.read_text("utf-8")
    assert plot.read_text("utf-8").startswith("<svg")


def test_five_draws_are_measured_and_the_page_of_the_docs_is_written_where_nothing_else_is_asked() -> None:
    args = parsed([])
    assert args.draws == 5
    assert START in args.page.read_text("utf-8")
    assert args.plot.name in args.page.read_text("utf-8")
