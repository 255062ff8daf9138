"""What the pages show of experts.yaml is read as experts.yaml is: whole files, and parts of one, put where they belong."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from router.errors import ConfigError
from router.expert import Expert
from router.experts import ExpertsFile, parse_experts
from router.yamlfile import YamlFile
from tests.docs.blocks import Block, blocks
from tests.docs.pages import name_of, pages

WHOLE = set(ExpertsFile.model_fields)
ELSEWHERE = {"extends:", "file:", "acme-"}  # other files and packages are there where the page's commands run
OTHERS = re.compile(r"(routes\.test|compose|workflow|pre-commit|\.github|values)")  # titles of other kinds of file
SHOWN = [(page, block) for page in pages() for block in blocks(page.read_text("utf-8")) if block.language == "yaml"]


def described(block: Block) -> dict[str, Any] | None:
    """A whole experts.yaml around what the block shows; None where it shows something else."""
    data = YamlFile.parse(textwrap.dedent(block.text), "block").data
    if not isinstance(data, dict) or OTHERS.search(block.title or ""):
        return None
    if set(data) <= WHOLE:
        whole = data
    elif set(data) <= set(Expert.model_fields):
        whole = {
            "experts": {"shown": {"model": "shown", "domains": ["code"], "upstream": {"embedded": "smollm2"}} | data}
        }
    elif all(isinstance(value, dict) and "upstream" in value for value in data.values()):
        whole = {"experts": data}
    else:
        return None
    return completed({"version": 1} | whole)


def completed(whole: dict[str, Any]) -> dict[str, Any]:
    """With what it leaves out because it is not the point: those who are referred to, and somebody who answers."""
    experts = {**(whole.get("experts") or {})}
    referred = {name for expert in experts.values() for name in expert.get("fallbacks", ())}
    referred |= {"general", (whole.get("router") or {}).get("fallback") or "general"}
    served = ["general", *(whole.get("domains") or {})]
    for name in referred - experts.keys():
        experts[name] = {"model": name, "domains": served, "upstream": {"embedded": "smollm2"}}
    for expert in experts.values():
        expert.setdefault("model", "shown")
        expert.setdefault("domains", ["general"])
        expert.setdefault("upstream", {"embedded": "smollm2"})
    return whole | {"experts": experts}


@pytest.mark.parametrize(("page", "block"), SHOWN, ids=[f"{name_of(page)}:{block.first + 1}" for page, block in SHOWN])
def test_what_it_shows_of_experts_yaml_is_right(page: Path, block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    if (whole := described(block)) is None or any(word in block.text for word in ELSEWHERE):
        return
    for name in re.findall(r"\$\{(\w+)\}", block.text):
        monkeypatch.setenv(name, "1")
    parse_experts(json.dumps(whole))


def test_most_of_them_are_looked_at() -> None:
    looked = [block for _, block in SHOWN if described(block) is not None]
    assert len(looked) > 0.6 * len(SHOWN) > 6


def test_a_wrong_key_is_found() -> None:
    block = Block("yaml", None, "    upstram: {vllm: [http://10.0.0.5:8000/v1]}\n    domains: [code]\n", 0, 2)
    assert described(block) is None
    block = Block("yaml", None, "experts:\n  one: {upstram: {vllm: [http://10.0.0.5:8000/v1]}}\n", 0, 2)
    with pytest.raises(ConfigError, match="upstram"):
        parse_experts(json.dumps(described(block)))
