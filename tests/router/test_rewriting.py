from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import ConfigError
from router.experts import parse_experts
from router.rewriting import with_quality

TEXT = """\
# at the top
version: 1
experts:
  coder:   # the first
    model: org/coder
    domains: {code: 0.9, math: 0.5}  # by hand
    upstream: {vllm: [http://10.0.0.5:8000/v1], api_key: ${HOME}}
  lister:
    domains: [code, math]  # a list
    model: "é ü"
    upstream: {vllm: [http://10.0.0.6:8000/v1]}
  blocked:
    domains:
      code: 0.8   # well
      bio: 0.1  # badly

    # between
    model: org/blocked
    upstream: {vllm: [http://10.0.0.7:8000/v1]}
  lines:
    model: org/lines
    upstream: {vllm: [http://10.0.0.8:8000/v1]}
    domains:
      - general  # all
      - math
"""


def qualities(text: str) -> dict[str, dict[str, float]]:
    return {name: expert.domains for name, expert in parse_experts(text).experts.items()}


def test_figures_change_where_they_stand_and_nothing_else_does() -> None:
    changed = with_quality(TEXT, {"coder": {"math": 0.333}, "blocked": {"bio": 1.0}})
    assert changed == TEXT.replace("math: 0.5", "math: 0.33").replace("bio: 0.1", "bio: 1")


def test_domains_that_are_not_named_yet_are_added_in_the_file_s_own_way() -> None:
    changed = with_quality(TEXT, {"coder": {"bio": 0.25}, "blocked": {"general": 0.5, "math": 0.75}})
    assert "{code: 0.9, math: 0.5, bio: 0.25}  # by hand" in changed
    assert "bio: 0.1  # badly\n      general: 0.5\n      math: 0.75\n\n    # between" in changed
    assert qualities(changed)["blocked"] == {"code": 0.8, "bio": 0.1, "general": 0.5, "math": 0.75}


def test_a_list_becomes_figures_with_what_the_list_meant() -> None:
    changed = with_quality(TEXT, {"lister": {"math": 0.7}, "lines": {"math": 0.2}})
    assert "domains: {code: 0.9, math: 0.7}  # a list" in changed
    assert qualities(changed)["lines"] == {"general": 0.9, "math": 0.2}
    assert qualities(changed)["lister"] == {"code": 0.9, "math": 0.7}


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["coder", "lister", "blocked", "lines"]),
        st.dictionaries(st.sampled_from(["code", "math", "bio", "general"]), st.floats(0, 1), min_size=1),
    ),
    st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_is_measured_stands_in_the_file_and_every_other_line_stays(
    measured: dict[str, dict[str, float]], line_end: str
) -> None:
    text = TEXT.replace("\n", line_end)
    changed = with_quality(text, measured)
    before, after = qualities(text), qualities(changed)
    for name, domains in before.items():
        assert after[name] == {**domains, **{d: round(q, 2) for d, q in measured.get(name, {}).items()}}
    for line in text.split(line_end):
        if not any(word in line for word in ("domains", "0.", "- ")):
            assert line in changed.split(line_end)


def test_experts_that_share_their_domains_are_not_changed_by_half() -> None:
    text = TEXT.replace("{code: 0.9, math: 0.5}", "&shared {code: 0.9, math: 0.5}").replace("[code, math]", "*shared")
    with pytest.raises(ConfigError, match="an alias; write its domains out"):
        with_quality(text, {"lister": {"code": 0.5}})
    with pytest.raises(ConfigError, match="an alias"):
        with_quality(text, {"coder": {"code": 0.5}})


def test_a_file_that_is_wrong_stays_as_it_is() -> None:
    with pytest.raises(ConfigError):
        with_quality(TEXT.replace("version: 1", "version: 2"), {"coder": {"code": 0.5}})


def test_what_a_file_extends_is_looked_for_beside_it_and_only_the_file_itself_is_changed(tmp_path: Path) -> None:
    base = "version: 1\nexperts:\n  lower: {model: m, domains: {general: 0.5}, upstream: {embedded: smollm2}}\n"
    text = "extends: base.yaml\nexperts:\n  upper: {model: m, domains: {code: 0.5}, upstream: {embedded: smollm2}}\n"
    (tmp_path / "base.yaml").write_text(base, "utf-8")
    path = tmp_path / "top.yaml"
    assert with_quality(text, {"upper": {"code": 0.7}}, path) == text.replace("0.5", "0.7")
    with pytest.raises(ConfigError, match="write it by hand"):
        with_quality(text, {"lower": {"general": 0.7}}, path)
