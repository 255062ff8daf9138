"""What is written into experts.yaml is read back as it was meant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.cataloguing.draft import Draft, domain_lines
from router.experts import parse_experts
from router.yamledit import with_entry
from router.yamlfile import YamlFile

BASE = "version: 1\nexperts:\n  a:\n    model: m\n    domains: {mine: 0.9}\n    upstream: {vllm: [http://h/v1]}\n"


@given(st.text(), st.lists(st.text(min_size=1).filter(str.strip), min_size=1))
def test_any_text_is_read_back(description: str, examples: list[str]) -> None:
    text = "\n".join(domain_lines("x", description, examples))
    read = YamlFile.parse(text, "f").data["x"]
    assert [example.replace("$${", "${") for example in read["examples"]] == [e.replace("$${", "${") for e in examples]


def test_examples_are_what_they_were_and_refer_to_nothing() -> None:
    prompts = ["${HOME} of mine", "a: b # c", 'say "hi"\\', "tab\there\nline", "😀 \u2028\x85", "- [x]", "100"]
    text = with_entry(BASE, "domains", domain_lines("mine", "", prompts))
    assert list(parse_experts(text).domains["mine"].examples) == prompts


def test_an_adapter_a_key_and_qualities_stand_where_they_belong() -> None:
    draft = Draft(
        "tax", "org/base", {"mine": 0.75, "code": None}, url="http://h:8000/v1", key="SERVER_KEY", adapter="tax-lora"
    )
    assert draft.lines() == [
        "tax:",
        "  model: org/base",
        "  domains: {mine: 0.75, code: 0.9}",
        '  upstream: {vllm: [http://h:8000/v1], adapter: tax-lora, api_key: "${SERVER_KEY}"}',
    ]


def test_domains_without_figures_are_a_list() -> None:
    assert "  domains: [code, math]" in Draft("x", "m", {"code": None, "math": None}, url="http://h/v1").lines()
