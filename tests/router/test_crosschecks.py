from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from router.crosschecks import cross_checks
from router.layers import Layers
from router.upstream import UPSTREAM_GROUP
from router.vocabulary import LEAST_EXAMPLES, PARTS, POLICY_GROUP
from router.yamlfile import YamlFile
from tests.fakes.packages import Install

EXPERTS = """\
experts:
  coder: {domains: [code], fallbacks: [general], upstream: {launch: {}}}
  general: {domains: {general: 0.9, math: 0.5}}
"""


def told(
    text: str, aliases: Mapping[str, str] | None = None, examples: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Each problem of the text as line, column, key and message."""
    layers = Layers.of([YamlFile.parse(text, "f")])
    return [str(problem).removeprefix("f:") for problem in cross_checks(layers, aliases or {}, examples or {})]


def experts(old: str = "", new: str = "") -> str:
    """EXPERTS, with the one place where `old` stands changed."""
    assert not old or EXPERTS.count(old) == 1
    return EXPERTS.replace(old, new, 1)


def test_what_is_named_and_there_is_right() -> None:
    text = experts() + "router: {fallback: general}\naliases: {gpt-4o: auto, mine: coder}\n"
    assert told(text, {"gpt-4o": "auto", "mine": "coder"}) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            experts("[general]", "[generl]"),
            "2:40: experts.coder.fallbacks.0: no expert 'generl'; did you mean 'general'?",
        ),
        (experts("[general]", "[coder]"), "2:40: experts.coder.fallbacks.0: an expert cannot be its own fallback"),
        (
            experts() + "router: {fallback: nobody}\n",
            "4:20: router.fallback: no expert 'nobody'; known are coder, general",
        ),
        (
            experts("  coder", "  auto"),
            "2:3: experts.auto: an expert's id is 1 to 64 letters, digits, '.', '_' or '-', and not auto or none",
        ),
        (
            experts("0.5}", "0.5}, upstream: {worker: codr}"),
            "3:68: experts.general.upstream.worker: no expert 'codr'; did you mean 'coder'?",
        ),
        (
            experts("{launch: {}}", "{worker: general}"),
            "2:69: experts.coder.upstream.worker: general launches no worker: it has no launch",
        ),
        (
            experts("[code]", "[code, cod]"),
            "2:27: experts.coder.domains.1: no domain 'cod' is declared; did you mean 'code'?",
        ),
        (
            experts("math: 0.5", "maths: 0.5"),
            "3:37: experts.general.domains.maths: no domain 'maths' is declared; did you mean 'math'?",
        ),
        (experts() + "domains: {legal: {}}\n", "4:11: domains.legal: no expert serves this domain"),
    ],
)
def test_what_is_named_and_not_there_is_told_where_it_is_named(text: str, says: str) -> None:
    assert told(text) == [says]


def test_a_name_of_a_domain_keeps_to_its_letters() -> None:
    text = experts("[code]", "[Legal]") + "domains: {Legal: {}}\n"
    assert told(text) == ["4:11: domains.Legal: a domain's name is 1 to 32 of a-z, 0-9, '_' and '-'"]


def test_a_domain_of_ones_own_needs_examples_and_a_built_in_one_does_not() -> None:
    text = experts("[code]", "[legal]") + "domains: {legal: {}, math: {}}\n"
    few, enough = ("a",) * (LEAST_EXAMPLES - 1), ("a",) * LEAST_EXAMPLES
    assert told(text, examples={"legal": few, "math": ()}) == [
        f"4:11: domains.legal: a domain of one's own needs {LEAST_EXAMPLES} example prompts or more, better 10 to 50"
    ]
    assert told(text, examples={"legal": enough, "math": ()}) == []


def test_what_is_wrong_inside_an_expert_hides_no_other_and_makes_none_point_to_nowhere() -> None:
    text = experts("{domains: {general: 0.9, math: 0.5}}", "5").replace("[general]", "[general, nobody]")
    assert told(text) == ["2:49: experts.coder.fallbacks.1: no expert 'nobody'; known are coder, general"]


@pytest.mark.parametrize(
    ("alias", "target", "says"),
    [
        ("a", "auto:lost", ["4:14: aliases.a: no policy 'auto:lost'; did you mean 'auto:last'?"]),
        (
            "a",
            "auto:xyzzyxyzzyx",
            [
                "4:14: aliases.a: no policy 'auto:xyzzyxyzzyx'; known are coder, general, auto, auto:cheap, "
                "auto:best, auto:last"
            ],
        ),
        ("auto:last", "coder", ["4:11: aliases.auto:last: is the name of an expert or virtual model already"]),
        ("coder", "auto", ["4:11: aliases.coder: is the name of an expert or virtual model already"]),
        ("a", "codr", ["4:14: aliases.a: no expert 'codr'; did you mean 'coder'?"]),
        ("a", "auto:last", []),
    ],
)
def test_an_alias_stands_for_an_expert_or_a_policy_and_hides_none(
    install: Install, alias: str, target: str, says: list[str]
) -> None:
    install("last-policy", POLICY_GROUP, {"last": "nowhere:last", "Not a name": "nowhere:last"}, {})
    assert told(f"{experts()}aliases: {{{alias}: {target}}}\n", {alias: target}) == says


@pytest.mark.parametrize(
    "options",
    [
        "{encoder: all-MiniLM-L6-v2, static: ''}",
        "{encoder: moe-static, static: '', head: kernel, calibrator: isotonic}",
        "{encoder: owner/model, static: ./here/encoder}",
    ],
)
def test_a_part_may_be_named_that_is_built_in_or_that_the_hub_or_a_folder_may_have(options: str) -> None:
    assert told(f"{experts()}router: {options}\n") == []


@pytest.mark.parametrize(
    ("key", "part"), [("encoder", "encoder"), ("static", "encoder"), ("head", "head"), ("calibrator",) * 2]
)
def test_what_an_installed_package_adds_may_be_named_and_is_near(install: Install, key: str, part: str) -> None:
    (problem,) = told(f"{experts()}router: {{{key}: acme-one}}\n")
    assert f"router.{key}: no {part} 'acme-one'; known are" in problem
    install("acme", PARTS[part][0], {"acme-one": "acme:one"}, {})
    assert told(f"{experts()}router: {{{key}: acme-one}}\n") == []
    (problem,) = told(f"{experts()}router: {{{key}: acme-on}}\n")
    assert problem.endswith("did you mean 'acme-one'?")


def test_an_upstream_of_a_package_has_to_be_installed(install: Install) -> None:
    text = experts("{launch: {}}", "{custom: acme}")
    place = "2:69: experts.coder.upstream.custom: no upstream 'acme' is installed"
    assert told(text) == [f"{place}; install the package that adds it"]
    install("other", UPSTREAM_GROUP, {"acme-2": "other:one"}, {})
    assert told(text) == [f"{place}; did you mean 'acme-2'?"]
    install("acme", UPSTREAM_GROUP, {"acme": "acme:one"}, {})
    assert told(text) == []
