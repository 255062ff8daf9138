"""The experts of deploy/: files that `moe-gateway check` takes, asked of workers that are there and serve just that."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.pricemap import PRICE_MAP
from router.experts import BUILT_IN_DOMAINS, load_experts
from tests.deploy.files import DEPLOY, EXPERTS, KUBERNETES, OVERLAYS, composed_workers
from tests.deploy.served import assert_served


@pytest.mark.parametrize("name", OVERLAYS)
def test_check_takes_it_and_warns_of_nothing(name: str) -> None:
    result = CliRunner().invoke(app, ["check", str(EXPERTS[name]), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["warnings"] == []
    assert told["domains"] == list(BUILT_IN_DOMAINS)


@pytest.mark.parametrize("name", OVERLAYS)
def test_compose_and_kubernetes_run_the_same_file(name: str) -> None:
    assert EXPERTS[name].resolve() == KUBERNETES / "overlays" / name / "experts.yaml"


def test_there_are_four_specialists_and_no_stand_in() -> None:
    experts = load_experts(EXPERTS["gpu"]).experts
    best = {max(expert.domains, key=lambda domain: expert.domains[domain]) for expert in experts.values()}
    assert (len(experts), best) == (4, {"code", "math", "bio", "general"})
    assert not any(expert.stand_in for expert in experts.values())


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_expert_has_a_worker_of_compose_that_serves_it(name: str) -> None:
    assert_served(composed_workers(name), EXPERTS[name])


def _entries(path: Path) -> dict[str, str]:
    """The text of each expert, its comments included."""
    parts = re.split(r"^  (\w+):$", path.read_text("utf-8").partition("\nexperts:\n")[2], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_prices_are_those_of_the_price_map_by_the_key_that_is_named() -> None:
    spec = find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    prices = json.loads((Path(spec.origin).parent / PRICE_MAP).read_text("utf-8"))
    for name, expert in load_experts(EXPERTS["gpu"]).experts.items():
        [key] = re.findall(r"^    price: .*# ([\w/.-]+)", _entries(EXPERTS["gpu"])[name], re.MULTILINE)
        assert expert.token_price is not None
        told = [1e6 * prices[key][f"{kind}_cost_per_token"] for kind in ("input", "output")]
        assert [expert.token_price.input, expert.token_price.output] == pytest.approx(told), key


def test_each_says_its_licence_its_gpus_and_where_that_stands() -> None:
    for name, text in _entries(EXPERTS["gpu"]).items():
        assert re.search(r"Licence: (Apache-2\.0|Health AI Developer Foundations)", text), name
        assert re.search(r"GPUs? of 80", text), name
        assert len(re.findall(r"https://[\w.-]+/\S+", text)) >= 2, name


def test_the_readme_names_the_models_that_run() -> None:
    text = (DEPLOY / "README.md").read_text("utf-8")
    assert not [e.model for n in OVERLAYS for e in load_experts(EXPERTS[n]).experts.values() if e.model not in text]
