from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import ConfigError, Problem
from router.experts import (
    BUILT_IN_DOMAINS,
    FALLBACK_OTHER_QUALITY,
    LISTED_QUALITY,
    OTHER_QUALITY,
    Expert,
    ExpertsFile,
    load_experts,
    parse_experts,
)
from router.prices import Price
from tests.fakes.documents import (
    DURATIONS,
    SECRET,
    SECRET_NAME,
    Data,
    Inline,
    experts_documents,
    renamed,
    replaced,
    without,
    written,
)
from tests.fakes.documents import Path as KeyPath

GOOD = """\
version: 1
router:
  confidence_floor: 0.6
  fallback: general
baseline: gpt-4o
aliases:
  gpt-4o-mini: auto
domains:
  legal:
    description: statutes and contracts
    examples: [What is a tort?, Draft a will., Is this clause void?, Who owns a patent?, Can I sue?]
experts:
  coder:
    model: some/coder
    domains: {code: 0.9, math: 0.5}
    upstream:
      vllm: [http://10.0.0.5:8000/v1, {url: http://10.0.0.6:8000/v1/, weight: 2}]
      api_key: ${DOCUMENTS_KEY}
    timeouts: {connect: 500ms, total: 10m}
    max_in_flight: 64
    defaults: {system: Be careful., temperature: 0.2}
    price: {input: 0.05, output: 0.10}
    context_window: 32768
    capabilities: [tools, json_schema]
    fallbacks: [general]
  general:
    model: some/generalist
    domains: [general, legal]
    upstream: {embedded: smollm2}
"""


@pytest.fixture(autouse=True, scope="module")
def secret() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET_NAME, SECRET)
        patch.setenv("EMPTY_KEY", "")
        patch.delenv("ABSENT_KEY", raising=False)
        yield


def good(old: str = "", new: str = "") -> str:
    """GOOD, with the one place where `old` stands changed."""
    assert not old or GOOD.count(old) == 1
    return GOOD.replace(old, new, 1)


def refusals(text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        parse_experts(text, "some.yaml")
    return caught.value.problems


def the_refusal(text: str) -> Problem:
    (problem,) = refusals(text)
    return problem


def line_of(text: str, fragment: str) -> int:
    (line,) = (number for number, line in enumerate(text.splitlines(), 1) if fragment in line)
    return line


def test_every_key_of_a_good_file_arrives() -> None:
    file = parse_experts(good())
    coder = file.experts["coder"]
    assert (file.router.confidence_floor, file.router.fallback, file.baseline) == (0.6, "general", "gpt-4o")
    assert file.aliases == {"gpt-4o-mini": "auto"}
    assert file.domains["legal"].description == "statutes and contracts"
    assert len(file.domains["legal"].examples) == 5
    assert (coder.model, coder.domains) == ("some/coder", {"code": 0.9, "math": 0.5})
    assert [(r.url, r.weight) for r in coder.upstream.vllm] == [
        ("http://10.0.0.5:8000/v1", 1.0),
        ("http://10.0.0.6:8000/v1", 2.0),
    ]
    assert coder.upstream.api_key == SECRET
    assert (coder.timeouts.connect, coder.timeouts.total) == (0.5, 600.0)
    assert (coder.max_in_flight, coder.context_window) == (64, 32768)
    assert (coder.defaults.system, coder.defaults.temperature) == ("Be careful.", 0.2)
    assert coder.price == Price(input=0.05, output=0.10)
    assert coder.capabilities == {"tools", "json_schema"}
    assert coder.fallbacks == ("general",)


def test_what_is_left_out_has_its_default() -> None:
    expert = parse_experts(good()).experts["general"]
    assert expert.domains == {"general": LISTED_QUALITY, "legal": LISTED_QUALITY}
    assert (expert.timeouts.connect, expert.timeouts.first_byte) == (2.0, 60.0)
    assert (expert.timeouts.idle, expert.timeouts.total) == (30.0, 600.0)
    assert (expert.price, expert.context_window, expert.max_in_flight) == (None, None, None)
    assert (expert.capabilities, expert.fallbacks, expert.languages) == (frozenset(), (), frozenset())


def test_an_expert_may_be_a_specialist_of_languages() -> None:
    file = parse_experts(GOOD.replace("capabilities: [tools, json_schema]", "languages: [ja, no]"))
    assert file.experts["coder"].languages == {"ja", "no"}


def test_only_the_embedded_engine_makes_a_stand_in() -> None:
    experts = parse_experts(good()).experts
    assert [key for key, expert in experts.items() if expert.stand_in] == ["general"]


def test_the_shipped_file_is_valid_and_serves_every_built_in_domain() -> None:
    file = load_experts(Path(__file__).parents[2] / "experts.yaml")
    assert file.domain_names == BUILT_IN_DOMAINS
    assert file.fallback == "general"


# Each of them: what is changed in GOOD, in which line the error stands, which key it names, what it says.
WRONG = [
    # unknown keys, each with the nearest that is known
    ("baseline: gpt", "base_line: gpt", "base_line:", "base_line", "unknown key; did you mean 'baseline'?"),
    ("baseline: gpt", "xyzzy: gpt", "xyzzy:", "xyzzy", "unknown key; known are version, experts, router, baseline"),
    ("max_in_flight", "max_inflight", "max_inflight", "experts.coder.max_inflight", "did you mean 'max_in_flight'?"),
    ("  fallback: g", "  falback: g", "falback", "router.falback", "unknown key; did you mean 'fallback'?"),
    ("vllm: [", "vlm: [", "vlm:", "experts.coder.upstream.vlm", "unknown key; did you mean 'vllm'?"),
    ("weight: 2", "wieght: 2", "wieght", "experts.coder.upstream.vllm.1.wieght", "did you mean 'weight'?"),
    ("connect: 5", "conect: 5", "conect", "experts.coder.timeouts.conect", "did you mean 'connect'?"),
    ("temperature", "temprature", "temprature", "experts.coder.defaults.temprature", "did you mean 'temperature'?"),
    ("output: 0.10", "output: 0.10, cachd: 1", "cachd", "experts.coder.price.cachd", "did you mean 'cached_input'?"),
    ("description", "descripton", "descripton", "domains.legal.descripton", "did you mean 'description'?"),
    ("version: 1\n", "version: 1\ndigest: abc\n", "digest", "digest", "unknown key"),
    # what has to be there
    ("version: 1\n", "", "router:", "version", "must be there and be 1"),
    ("version: 1\n", "version: 2\n", "version", "version", "must be there and be 1"),
    ("version: 1\n", "version: '1'\n", "version", "version", "must be there and be 1"),
    ("    model: some/coder\n", "", "coder:", "experts.coder.model", "is missing"),
    ("    domains: {code: 0.9, math: 0.5}\n", "", "coder:", "experts.coder.domains", "is missing"),
    ("    upstream: {embedded: smollm2}\n", "", "  general:", "experts.general.upstream", "is missing"),
    ("{input: 0.05, output: 0.10}", "{input: 0.05}", "price", "experts.coder.price.output", "is missing"),
    (
        "{url: http://10.0.0.6:8000/v1/, weight: 2}",
        "{weight: 2}",
        "vllm",
        "experts.coder.upstream.vllm.1.url",
        "is missing",
    ),
    ("some/coder", "''", "model: ''", "experts.coder.model", "at least 1 character"),
    # references
    (
        "  fallback: general",
        "  fallback: generl",
        "generl",
        "router.fallback",
        "no expert 'generl'; did you mean 'general'?",
    ),
    ("fallbacks: [general]", "fallbacks: [nobody]", "nobody", "experts.coder.fallbacks.0", "no expert 'nobody'"),
    (
        "fallbacks: [general]",
        "fallbacks: [general, coder]",
        "fallbacks:",
        "experts.coder.fallbacks.1",
        "its own fallback",
    ),
    (
        "gpt-4o-mini: auto",
        "gpt-4o-mini: autoo",
        "autoo",
        "aliases.gpt-4o-mini",
        "no expert 'autoo'; did you mean 'auto'?",
    ),
    (
        "gpt-4o-mini: auto",
        "coder: auto",
        "coder: auto",
        "aliases.coder",
        "is the name of an expert or virtual model already",
    ),
    (
        "gpt-4o-mini: auto",
        "auto:best: auto",
        "auto:best",
        "aliases.auto:best",
        "is the name of an expert or virtual model",
    ),
    (
        "math: 0.5}",
        "maths: 0.5}",
        "maths",
        "experts.coder.domains.maths",
        "no domain 'maths' is declared; did you mean 'math'?",
    ),
    ("[general, legal]", "[general]", "  legal:", "domains.legal", "no expert serves this domain"),
    # addresses
    (
        "http://10.0.0.5:8000/v1,",
        "10.0.0.5/v1,",
        "vllm",
        "experts.coder.upstream.vllm.0.url",
        "not an http:// or https://",
    ),
    (
        "http://10.0.0.5:8000/v1,",
        "ftp://host/v1,",
        "vllm",
        "experts.coder.upstream.vllm.0.url",
        "not an http:// or https://",
    ),
    (
        "http://10.0.0.5:8000/v1,",
        "'http://',",
        "vllm",
        "experts.coder.upstream.vllm.0.url",
        "not an http:// or https://",
    ),
    (
        "http://10.0.0.5:8000/v1,",
        "http://h/v1?a=b,",
        "vllm",
        "experts.coder.upstream.vllm.0.url",
        "not an http:// or https://",
    ),
    (
        "http://10.0.0.5:8000/v1,",
        "http://h/v1#b,",
        "vllm",
        "experts.coder.upstream.vllm.0.url",
        "not an http:// or https://",
    ),
    ("http://10.0.0.5:8000/v1,", "http://h:99999,", "vllm", "experts.coder.upstream.vllm.0.url", "port"),
    ("http://10.0.0.5:8000/v1,", "http://h:http,", "vllm", "experts.coder.upstream.vllm.0.url", "port"),
    ("http://10.0.0.5:8000/v1,", "http://a b/v1,", "vllm", "experts.coder.upstream.vllm.0.url", ""),
    ("http://10.0.0.5:8000/v1,", r"http://a\b/v1,", "vllm", "experts.coder.upstream.vllm.0.url", ""),
    (
        "http://10.0.0.6:8000/v1/",
        "gopher://h",
        "vllm",
        "experts.coder.upstream.vllm.1.url",
        "not an http:// or https://",
    ),
    (
        "http://10.0.0.5:8000/v1,",
        "http://u:p@h/v1,",
        "vllm",
        "experts.coder.upstream.vllm.0.url",
        "carries no credentials",
    ),
    # secrets
    ("${DOCUMENTS_KEY}", "sk-plain", "sk-plain", "experts.coder.upstream.api_key", "a secret is never written here"),
    ("${DOCUMENTS_KEY}", "Bearer ${DOCUMENTS_KEY}", "Bearer", "experts.coder.upstream.api_key", "never written here"),
    ("${DOCUMENTS_KEY}", "${ABSENT_KEY}", "ABSENT", "experts.coder.upstream.api_key", "variable ABSENT_KEY is not set"),
    (
        "${DOCUMENTS_KEY}",
        "${EMPTY_KEY}",
        "EMPTY_KEY",
        "experts.coder.upstream.api_key",
        "variable EMPTY_KEY is empty",
    ),
    # figures
    ("input: 0.05", "input: -0.05", "price", "experts.coder.price.input", "greater than or equal to 0"),
    ("output: 0.10", "output: -1", "price", "experts.coder.price.output", "greater than or equal to 0"),
    ("output: 0.10", "output: 0.10, cached_input: -1", "price", "experts.coder.price.cached_input", "or equal to 0"),
    ("input: 0.05", "input: .nan", "price", "experts.coder.price.input", ""),
    ("input: 0.05", "input: .inf", "price", "experts.coder.price.input", ""),
    ("input: 0.05", "input: cheap", "price", "experts.coder.price.input", "valid number"),
    ("code: 0.9", "code: 1.1", "code:", "experts.coder.domains.code", "less than or equal to 1"),
    ("code: 0.9", "code: -0.1", "code:", "experts.coder.domains.code", "greater than or equal to 0"),
    ("code: 0.9", "code: .nan", "code:", "experts.coder.domains.code", ""),
    ("weight: 2", "weight: 0", "weight", "experts.coder.upstream.vllm.1.weight", "greater than 0"),
    ("weight: 2", "weight: .inf", "weight", "experts.coder.upstream.vllm.1.weight", ""),
    ("floor: 0.6", "floor: 1.6", "floor", "router.confidence_floor", "less than or equal to 1"),
    ("flight: 64", "flight: 0", "flight", "experts.coder.max_in_flight", "greater than 0"),
    ("window: 32768", "window: -1", "window", "experts.coder.context_window", "greater than 0"),
    ("window: 32768", "window: 1.5", "window", "experts.coder.context_window", "valid integer"),
    ("temperature: 0.2", "temperature: 2.1", "temperature", "experts.coder.defaults.temperature", "equal to 2"),
    ("temperature: 0.2", "top_p: 0", "top_p", "experts.coder.defaults.top_p", "greater than 0"),
    ("temperature: 0.2", "max_tokens: 0", "max_tokens", "experts.coder.defaults.max_tokens", "greater than 0"),
    # durations
    ("500ms", "5 parsecs", "parsecs", "experts.coder.timeouts.connect", "'5 parsecs' is not a duration; write 500ms"),
    ("500ms", "-2s", "-2s", "experts.coder.timeouts.connect", "'-2s' is not a duration"),
    ("500ms", "0s", "0s", "experts.coder.timeouts.connect", "greater than 0"),
    ("500ms", "[2s]", "[2s]", "experts.coder.timeouts.connect", "valid number"),
    ("10m", "''", "timeouts", "experts.coder.timeouts.total", "'' is not a duration"),
    # shapes
    (
        "[tools, json_schema]",
        "[tools]\n    languages: [ja, Japanese]",
        "Japanese",
        "experts.coder.languages.1",
        "did you mean 'ja'?",
    ),
    ("[tools, json_schema]", "[tools]\n    languages: [jp]", "jp", "experts.coder.languages.0", "did you mean 'ja'?"),
    ("[tools, json_schema]", "[tools]\n    languages: [qq]", "qq", "experts.coder.languages.0", "such as ja"),
    # the router's parts
    ("floor: 0.6", "floor: 0.6\n  head: liner", "liner", "router.head", "no head 'liner'; did you mean 'linear'?"),
    ("floor: 0.6", "floor: 0.6\n  head: ''", "head: ''", "router.head", "no head ''; known are linear, kernel"),
    ("floor: 0.6", "floor: 0.6\n  calibrator: magic", "magic", "router.calibrator", "known are temperature, isotonic"),
    ("floor: 0.6", "floor: 0.6\n  encoder: moe-mini", "moe-mini", "router.encoder", "did you mean 'moe-minilm'?"),
    ("floor: 0.6", "floor: 0.6\n  encoder: ''", "encoder: ''", "router.encoder", "no encoder ''"),
    ("floor: 0.6", "floor: 0.6\n  static: moe-statik", "statik", "router.static", "did you mean 'moe-static'?"),
    ("floor: 0.6", "floor: 0.6\n  head: 5", "head: 5", "router.head", "valid string"),
    (
        "[tools, json_schema]",
        "[tools, flying]",
        "flying",
        "experts.coder.capabilities.1",
        "known are tools, json_schema",
    ),
    ("[tools, json_schema]", "[tools, json]", "json]", "experts.coder.capabilities.1", "did you mean 'json_schema'"),
    ("{embedded: smollm2}", "{embedded: other}", "other", "experts.general.upstream.embedded", "known are smollm2"),
    ("{embedded: smollm2}", "{litellm: gemini}", "gemini", "experts.general.upstream.litellm", "match pattern"),
    (
        "{embedded: smollm2}",
        "{embedded: smollm2, base_url: http://a.test}",
        "embedded: smollm2, b",
        "experts.general.upstream",
        "base_url goes",
    ),
    (
        "{embedded: smollm2}",
        "{litellm: a/b}\n    endpoints: [responses]",
        "general:",
        "experts.general",
        "endpoints of litellm",
    ),
    (
        "{embedded: smollm2}",
        "{}",
        "{}",
        "experts.general.upstream",
        "give exactly one of vllm: [URL, …], launch: {engine: vllm}, worker: expert, litellm: provider",
    ),
    ("{embedded: smollm2}", "{vllm: []}", "vllm: []", "experts.general.upstream", "give exactly one of"),
    ("{embedded: s", "{vllm: [http://h], embedded: s", "[http://h]", "experts.general.upstream", "give exactly one of"),
    ("{code: 0.9, math: 0.5}", "{}", "{}", "experts.coder.domains", "at least 1 item"),
    ("{code: 0.9, math: 0.5}", "code", "domains: code", "experts.coder.domains", "valid dictionary"),
    ("baseline: gpt-4o", "baseline: [a]", "baseline", "baseline", "expected the name of a model, such as gpt-4o"),
    ("baseline: gpt-4o", "baseline: dearest", "dearest", "baseline", "always the dearest expert, are counted anyway"),
    ("baseline: gpt-4o", "baseline: {name: ours, input: 1}", "{name", "baseline.output", "is missing"),
    (
        "baseline: gpt-4o",
        "baseline: {name: ours, input: 1, output: -2}",
        "-2",
        "baseline.output",
        "greater than or equal",
    ),
    ("baseline: gpt-4o", "baseline: {name: dearest, input: 1, output: 2}", "{name", "baseline", "are counted anyway"),
    ("{input: 0.05, output: 0.10}", "{gpu_hour: -1}", "-1", "experts.coder.price.gpu_hour", "greater than or equal"),
    (
        "{input: 0.05, output: 0.10}",
        "{gpu_hour: 2.5, gpus: 0}",
        "gpus: 0",
        "experts.coder.price.gpus",
        "greater than 0",
    ),
    ("{input: 0.05, output: 0.10}", "{gpus: 2}", "{gpus", "experts.coder.price.gpu_hour", "is missing"),
    (
        "{input: 0.05, output: 0.10}",
        "{gpu_hour: 2.5, gpuz: 1}",
        "gpuz",
        "experts.coder.price.gpuz",
        "did you mean 'gpus'?",
    ),
    (
        "{input: 0.05, output: 0.10}",
        "{input: 1, output: 2, resoning: 1}",
        "reso",
        "experts.coder.price.resoning",
        "'reasoning'?",
    ),
    (
        "{input: 0.05, output: 0.10}",
        "{gpu_hour: 2.5, output: 1}",
        "{gpu_hour",
        "experts.coder.price",
        "by the token or by the GPU hour",
    ),
    ("{input: 0.05, output: 0.10}", "2.5", "price: 2.5", "experts.coder.price", "valid dictionary"),
    (
        "    price: {i",
        "    energy: {watts: 7, idle: 1}\n    price: {i",
        "idle: 1",
        "experts.coder.energy.idle",
        "mean 'idle_watts'?",
    ),
    ("    price: {i", "    energy: {watts: .inf}\n    price: {i", ".inf", "experts.coder.energy.watts", "finite"),
    ("floor: 0.6", "floor: 0.6\n  cpu_hour: -1", "cpu_hour: -1", "router.cpu_hour", "greater than or equal"),
    ("  gpt-4o-mini: auto", "  - auto", "aliases:", "aliases", "expected names and what they stand for"),
    # ids and domains
    ("  coder:\n", "  co der:\n", "co der:", "experts.co der", "an expert's id is 1 to 64 letters"),
    ("  coder:\n", "  none:\n", "none:", "experts.none", "and not auto or none"),
    ("  coder:\n", "  auto:cheap:\n", "auto:cheap", "experts.auto:cheap", "an expert's id is 1 to 64 letters"),
    (", Can I sue?]", "]", "legal:", "domains.legal", "needs 5 example prompts or more"),
    ("Can I sue?", "' '", "legal:", "domains.legal", "an example is empty"),
]


@pytest.mark.parametrize(("old", "new", "fragment", "key", "says"), WRONG, ids=lambda part: part if part else "-")
def test_an_error_names_file_line_and_key_and_says_what_is_wrong(
    old: str, new: str, fragment: str, key: str, says: str
) -> None:
    text = good(old, new)
    problem = the_refusal(text)
    assert (problem.file, problem.line, problem.key) == ("some.yaml", line_of(text, fragment), key)
    assert says in problem.message
    assert str(problem).startswith(f"some.yaml:{problem.line}:{problem.column}: {key}: ")


@pytest.mark.parametrize(
    ("filled", "key"),
    [
        ("version: 1", "version"),
        ("confidence_floor: 0.6", "router.confidence_floor"),
        ("description: statutes and contracts", "domains.legal.description"),
        ("model: some/coder", "experts.coder.model"),
        ("domains: {code: 0.9, math: 0.5}", "experts.coder.domains"),
        ("timeouts: {connect: 500ms, total: 10m}", "experts.coder.timeouts"),
        ("fallbacks: [general]", "experts.coder.fallbacks"),
        ("upstream: {embedded: smollm2}", "experts.general.upstream"),
    ],
)
def test_a_key_that_was_left_empty_is_a_problem_in_its_own_line(filled: str, key: str) -> None:
    problem = the_refusal(good(filled, filled.partition(" ")[0]))
    assert (problem.line, problem.key) == (line_of(good(), filled), key)


def test_a_domain_of_ones_own_keeps_to_the_letters_that_names_may_have() -> None:
    text = GOOD.replace("legal", "Law & order")
    assert [(p.line, p.key) for p in refusals(text)] == [(line_of(text, "Law & order:"), "domains.Law & order")]


def test_all_errors_come_at_once_in_the_order_of_their_lines() -> None:
    text = good()
    for old, new in [
        ("confidence_floor: 0.6", "confidence_floor: 6"),
        ("baseline: gpt-4o", "base: gpt-4o"),
        ("gpt-4o-mini: auto", "gpt-4o-mini: nobody"),
        ("model: some/coder", "modell: some/coder"),
        ("http://10.0.0.5:8000/v1", "nonsense"),
        ("500ms", "soon"),
        ("output: 0.10", "output: -1"),
        ("[tools, json_schema]", "[telepathy]"),
        ("{embedded: smollm2}", "{embedded: giant}"),
    ]:
        text = text.replace(old, new)
    problems = refusals(text)
    assert [p.key for p in problems] == [
        "router.confidence_floor",
        "base",
        "aliases.gpt-4o-mini",
        "experts.coder.modell",
        "experts.coder.upstream.vllm.0.url",
        "experts.coder.timeouts.connect",
        "experts.coder.price.output",
        "experts.coder.capabilities.0",
        "experts.general.upstream.embedded",
    ]
    assert [p.line for p in problems] == sorted(p.line for p in problems)


def test_an_expert_that_stands_twice_is_refused_with_both_lines() -> None:
    text = good() + "  coder:\n    model: another\n    domains: [code]\n    upstream: {embedded: smollm2}\n"
    problem = the_refusal(text)
    assert (problem.line, problem.key) == (line_of(text, "model: another") - 1, "experts.coder")
    assert problem.message == f"stands twice; the first is on line {line_of(good(), '  coder:')}"


def test_a_key_that_stands_twice_in_an_expert_is_refused() -> None:
    text = good("    max_in_flight: 64\n", "    max_in_flight: 64\n    max_in_flight: 65\n")
    assert [(p.line, p.key) for p in refusals(text)] == [(line_of(text, ": 65"), "experts.coder.max_in_flight")]


@pytest.mark.parametrize("text", ["", "# nothing\n", "experts", "- a\n- b\n", "1.5", "null"])
def test_a_file_without_keys_is_refused(text: str) -> None:
    problem = the_refusal(text)
    assert (problem.line, problem.key) == (1, "")
    assert "expected keys" in problem.message


@pytest.mark.parametrize("experts", ["", "5", "true", "1.5", "2001-01-01", "abc", "[a, b]", "{}"])
def test_experts_that_are_no_entries_are_refused(experts: str) -> None:
    problem = the_refusal(f"version: 1\nexperts: {experts}\n")
    assert (problem.line, problem.key, problem.message) == (2, "experts", "expected one entry or more under experts:")


def test_a_file_without_experts_is_refused() -> None:
    assert the_refusal("version: 1\n").key == "experts"


@pytest.mark.parametrize("domains", ["5", "[legal]", "{}", "legal"])
def test_domains_that_are_no_entries_are_refused(domains: str) -> None:
    text = f"version: 1\ndomains: {domains}\nexperts:\n  a: {{model: m, domains: [code], upstream: {{embedded: smollm2}}}}\n"
    assert [(p.line, p.key) for p in refusals(text)] == [(2, "domains")]


@pytest.mark.parametrize(
    ("section", "value"), [("router", "5"), ("router", "[1]"), ("aliases", "5"), ("aliases", "[a]")]
)
def test_a_section_of_another_shape_is_refused_at_its_line(section: str, value: str) -> None:
    text = f"experts:\n  a: {{model: m, domains: [code], upstream: {{embedded: smollm2}}}}\n{section}: {value}\nversion: 1\n"
    assert [(p.line, p.key) for p in refusals(text)] == [(3, section)]


@pytest.mark.parametrize("key", ["hunter2-abc", "${DOCUMENTS_KEY}hunter2", "$hunter2"])
def test_a_secret_that_was_written_down_is_not_repeated_in_the_error(key: str) -> None:
    problem = the_refusal(good("${DOCUMENTS_KEY}", key))
    assert "hunter2" not in str(problem)
    assert SECRET not in str(problem)


@pytest.mark.parametrize("url", ["http://me:hunter2@h/v1", "http://me:hunter2/x@h/v1", "http://hunter2@h"])
def test_credentials_in_an_address_are_not_repeated_in_the_error(url: str) -> None:
    assert "hunter2" not in str(the_refusal(good("http://10.0.0.5:8000/v1,", f"'{url}',")))


def test_a_secret_does_not_show_when_a_file_is_printed() -> None:
    file = parse_experts(good())
    assert SECRET not in repr(file)
    assert SECRET not in str(file.experts["coder"].upstream)


@pytest.mark.parametrize(("text", "seconds"), [*DURATIONS.items(), ("3", 3.0), ("0.25", 0.25), ("1.5h", 5400.0)])
def test_a_duration_is_read_in_every_unit(text: str, seconds: float) -> None:
    file = parse_experts(good("connect: 500ms", f"connect: {text}"))
    assert file.experts["coder"].timeouts.connect == seconds


def test_the_fallback_is_the_one_named_then_the_first_for_general_then_the_first() -> None:
    assert parse_experts(good("  fallback: general", "  fallback: coder")).fallback == "coder"
    assert parse_experts(good("  fallback: general\n", "")).fallback == "general"
    no_general = good("  fallback: general\n", "").replace("[general, legal]", "[legal]")
    assert parse_experts(no_general).fallback == "coder"


def test_a_domain_that_an_expert_does_not_name_counts_less_and_more_for_the_fallback() -> None:
    file = parse_experts(good())
    assert file.quality("coder", "code") == 0.9
    assert file.quality("coder", "bio") == OTHER_QUALITY
    assert file.quality("general", "legal") == LISTED_QUALITY
    assert file.quality("general", "bio") == FALLBACK_OTHER_QUALITY


def test_the_domains_are_the_built_in_ones_whoever_serves_them_then_those_that_the_file_adds() -> None:
    assert "bio" not in GOOD
    assert parse_experts(good()).domain_names == ("code", "math", "bio", "general", "legal")
    file = parse_experts(good("[general, legal]", "[legal, general, bio]"))
    assert file.domain_names == ("code", "math", "bio", "general", "legal")


def test_prices_are_compared_by_three_tokens_in_for_one_out() -> None:
    assert parse_experts(good()).experts["coder"].blended == pytest.approx((0.05 * 3 + 0.10) / 4)


@pytest.mark.parametrize("text", ["4: auto", "true: auto", "1.5: general"])
def test_an_alias_that_yaml_reads_as_a_number_is_still_a_name(text: str) -> None:
    file = parse_experts(good("gpt-4o-mini: auto", text))
    assert all(isinstance(alias, str) for alias in file.aliases)


def test_an_alias_of_an_expert_whose_id_yaml_reads_as_a_number_leads_to_it() -> None:
    text = GOOD.replace("  coder:", "  7:").replace("gpt-4o-mini: auto", "gpt-4o-mini: 7")
    file = parse_experts(text)
    assert file.aliases["gpt-4o-mini"] in file.experts


def test_the_digest_names_the_content() -> None:
    digests = {
        parse_experts(text).digest for text in (good(), good(), good("floor: 0.6", "floor: 0.7"), good() + "# more\n")
    }
    assert len(digests) == 3
    assert all(len(digest) == 12 for digest in digests)


def test_loading_names_the_file_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("version: 2\nexperts: {}\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_experts(path)
    assert {p.file for p in caught.value.problems} == {"mine.yaml"}


def test_loading_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^absent\.yaml:1:1: is not there$"):
        load_experts(tmp_path / "absent.yaml")


def test_a_file_cannot_be_changed_once_read() -> None:
    file = parse_experts(good())
    with pytest.raises(ValueError, match="frozen"):
        file.experts["coder"].model = "another"


def seconds(value: Any) -> Any:
    return DURATIONS[value] if isinstance(value, str) else value


def assert_kept(expert: Expert, data: Data) -> None:
    named = data["domains"]
    assert expert.model == data["model"]
    assert expert.domains == (named if isinstance(named, dict) else dict.fromkeys(named, LISTED_QUALITY))
    assert expert.max_in_flight == data.get("max_in_flight")
    assert expert.context_window == data.get("context_window")
    assert expert.capabilities == set(data.get("capabilities", ()))
    assert expert.fallbacks == tuple(data.get("fallbacks", ()))
    upstream = data["upstream"]
    replicas = [{"url": r} if isinstance(r, str) else r for r in upstream.get("vllm", ())]
    assert [(r.url, r.weight) for r in expert.upstream.vllm] == [
        (r["url"].rstrip("/"), r.get("weight", 1.0)) for r in replicas
    ]
    assert expert.upstream.embedded == upstream.get("embedded")
    assert expert.upstream.api_key == (SECRET if "api_key" in upstream else None)
    for name, value in data.get("timeouts", {}).items():
        assert getattr(expert.timeouts, name) == seconds(value)
    for section in ("defaults", "price"):
        for name, value in data.get(section, {}).items():
            assert getattr(getattr(expert, section), name) == value


@given(experts_documents())
@settings(deadline=None, max_examples=25)
def test_every_valid_file_is_read_and_keeps_its_values(data: Data) -> None:
    text, _ = written(data)
    file = parse_experts(text)
    assert list(file.experts) == list(data["experts"])
    for key, expert in data["experts"].items():
        assert_kept(file.experts[key], expert)
    assert file.baseline == data.get("baseline")
    assert file.aliases == data.get("aliases", {})
    assert {key: list(domain.examples) for key, domain in file.domains.items()} == {
        key: domain["examples"] for key, domain in data.get("domains", {}).items()
    }
    for name, value in data.get("router", {}).items():
        assert getattr(file.router, name) == value


def keys(places: dict[KeyPath, int]) -> list[KeyPath]:
    return [path for path in places if isinstance(path[-1], str)]


def spoiled_name(data: Data, path: KeyPath) -> str:
    """Another name for the key at `path`, one that cannot stand there."""
    match path:
        case ("aliases", _):
            return str(next(iter(data["experts"])))
        case ("experts", _) | ("domains", _):
            return f"{path[-1]} and more"
        case _:
            return f"{path[-1]}_x"


@given(experts_documents(), st.data())
@settings(deadline=None, max_examples=30)
def test_any_key_that_is_renamed_is_a_problem_in_its_line(data: Data, pick: st.DataObject) -> None:
    path = pick.draw(st.sampled_from(keys(written(data)[1])))
    name = spoiled_name(data, path)
    text, places = written(renamed(data, path, name))
    at = (*path[:-1], name)
    assert (places[at], ".".join(map(str, at))) in {(p.line, p.key) for p in refusals(text)}


@given(experts_documents(), st.data())
@settings(deadline=None, max_examples=30)
def test_any_key_whose_value_has_the_wrong_shape_is_a_problem_in_its_line(data: Data, pick: st.DataObject) -> None:
    path = pick.draw(st.sampled_from(keys(written(data)[1])))
    text, places = written(replaced(data, path, Inline("{unexpected: []}")))
    key = ".".join(map(str, path))
    assert any(p.line == places[path] and p.key.startswith(key) for p in refusals(text))


@given(experts_documents(), st.data())
@settings(deadline=None, max_examples=25)
def test_any_key_that_has_to_be_there_is_missed(data: Data, pick: st.DataObject) -> None:
    needed: list[tuple[str, ...]] = [("version",), ("experts",)]
    needed += [("experts", key, part) for key in data["experts"] for part in ("model", "domains", "upstream")]
    path = pick.draw(st.sampled_from(needed))
    text, places = written(without(data, path))
    place = places.get(path[:-1], 1)
    assert (place, ".".join(path)) in {(p.line, p.key) for p in refusals(text)}


def read_or_refused(text: str) -> None:
    """Any exception but a ConfigError is let through, and so is one that names no place."""
    problems = []
    try:
        assert isinstance(parse_experts(text), ExpertsFile)
    except ConfigError as refusal:
        problems = refusal.problems
        assert problems, "refused without a reason"
    assert all(p.line >= 1 and p.column >= 1 and p.message for p in problems)


YAML_LIKE = st.text("abcxyz019.,:-_#&*!|>%@`'\"?[]{}<=~$\\ \n\t", max_size=60)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates().map(str) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.text() | YAML_LIKE)
@settings(deadline=None, max_examples=80)
def test_no_text_raises_anything_but_a_config_error(text: str) -> None:
    read_or_refused(text)


@given(st.integers(0, len(GOOD)), st.integers(0, 30), YAML_LIKE)
@settings(deadline=None, max_examples=80)
def test_no_slip_in_a_good_file_raises_anything_but_a_config_error(start: int, length: int, slip: str) -> None:
    read_or_refused(GOOD[:start] + slip + GOOD[start + length :])


@given(experts_documents(), ANYTHING, st.data())
@settings(deadline=None, max_examples=40)
def test_no_value_at_any_place_raises_anything_but_a_config_error(data: Data, value: Any, pick: st.DataObject) -> None:
    path = pick.draw(st.sampled_from(sorted(written(data)[1], key=str)))
    read_or_refused(json.dumps(replaced(data, path, value)))


SCALARS = st.sampled_from(
    ["5", "true", "null", "1.5", ".nan", ".inf", "2001-01-01", "[]", "{}", "''", "[[]]", "{a: b}", "~"]
)


@given(st.dictionaries(st.sampled_from(["version", "experts", "domains", "router", "aliases", "baseline"]), SCALARS))
@settings(deadline=None, max_examples=40)
def test_no_section_of_another_kind_raises_anything_but_a_config_error(sections: dict[str, str]) -> None:
    read_or_refused("".join(f"{key}: {value}\n" for key, value in sections.items()))


LAUNCHED = """\
version: 1
experts:
  base:
    model: org/base
    domains: [general]
    sleep_after: 10m
    upstream:
      launch:
        engine: vllm
        replicas: 2
        args: [--max-model-len, 2048, --enable-sleep-mode]
        gpus: [0, 1, 2, 3]
        env: {HF_HOME: /models, OMP_NUM_THREADS: 4}
        lora_modules: {legal: /adapters/legal}
  lawyer:
    model: org/base
    domains: [general]
    upstream: {worker: base, adapter: legal}
  poet:
    model: org/base
    domains: [general]
    upstream: {vllm: "http://10.0.0.5:8000/v1", adapter: {name: verse, path: /adapters/verse}}
"""


def test_workers_to_launch_and_adapters_are_read_as_they_are_written() -> None:
    experts = parse_experts(LAUNCHED).experts
    launch = experts["base"].upstream.launch
    assert launch is not None
    assert launch.args == ("--max-model-len", "2048", "--enable-sleep-mode")
    assert (launch.has("enable-sleep-mode"), launch.has("max-model-len"), launch.has("enable-lora")) == (
        True,
        True,
        False,
    )
    assert [launch.gpus_of(i) for i in range(2)] == [(0, 1), (2, 3)]
    assert launch.env == {"HF_HOME": "/models", "OMP_NUM_THREADS": "4"}
    assert (experts["base"].sleep_after, experts["base"].upstream_model) == (600, "org/base")
    assert (experts["lawyer"].upstream.worker, experts["lawyer"].upstream_model) == ("base", "legal")
    assert (experts["poet"].upstream_model, len(experts["poet"].upstream.vllm)) == ("verse", 1)
    assert all(expert.upstream.speaks_vllm for expert in experts.values())


def test_arguments_may_be_one_line_and_more_replicas_than_gpus_share_them() -> None:
    text = LAUNCHED.replace(
        "[--max-model-len, 2048, --enable-sleep-mode]", "--max-model-len=2048 --tool-call-parser 'a b'"
    )
    launch = parse_experts(text.replace("gpus: [0, 1, 2, 3]", "gpus: [5]")).experts["base"].upstream.launch
    assert launch is not None
    assert launch.args == ("--max-model-len=2048", "--tool-call-parser", "a b")
    assert [launch.gpus_of(i) for i in range(2)] == [(5,), (5,)]
    assert launch.has("max-model-len")


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("--enable-sleep-mode]", "--port, 80]", "experts.base.upstream.launch", "--port is set by the gateway"),
        ("--enable-sleep-mode]", "--api_key=x]", "experts.base.upstream.launch", "--api-key is set by the gateway"),
        ("[0, 1, 2, 3]", "[0, 1, 2]", "experts.base.upstream.launch", "3 gpus cannot be dealt out evenly among 2"),
        ("[0, 1, 2, 3]", "[0, 0]", "experts.base.upstream.launch", "a GPU stands twice"),
        ("OMP_NUM_THREADS: 4", "HF_TOKEN: ${MOE_NO_SUCH}", "experts.base.upstream.launch.env.HF_TOKEN", "MOE_NO_SUCH is not set"),
        ("OMP_NUM_THREADS: 4", "A-B: 4", "experts.base.upstream.launch", "a name in env"),
        ("OMP_NUM_THREADS: 4", r'A: "a\0b"', "experts.base.upstream.launch.env.A", "no program can be given a NUL"),
        ("--enable-sleep-mode]", r'"a\0b"]', "experts.base.upstream.launch.args.2", "no program can be given a NUL"),
        ("--enable-sleep-mode]", r'"\ud800"]', "experts.base.upstream.launch.args.2", "half a character"),
        ("/adapters/legal}", r'"a\0b"}', "experts.base.upstream.launch.lora_modules.legal", "a NUL"),
        ("path: /adapters/verse", r'path: "a\0b"', "experts.poet.upstream.adapter.path", "a NUL"),
        ("base:\n    model: org/base", 'base:\n    model: "a\\0b"', "experts.base.model", "no program can be given a NUL"),
        ("replicas: 2", "replicas: 0", "experts.base.upstream.launch.replicas", "greater than or equal to 1"),
        ("replicas: 2", "replica: 2", "experts.base.upstream.launch.replica", "did you mean 'replicas'?"),
        ("worker: base, adapter: legal", "worker: base", "experts.lawyer.upstream", "worker goes with adapter"),
        ("worker: base,", "worker: bass,", "experts.lawyer.upstream.worker", "no expert 'bass'; did you mean 'base'?"),
        ("worker: base,", "worker: poet,", "experts.lawyer.upstream.worker", "poet launches no worker"),
        ("adapter: legal", "adapter: legal, api_key: ${HOME}", "experts.lawyer.upstream", "gets a key of its own"),
        ("    sleep_after: 10m", "    sleep_after: soon", "experts.base.sleep_after", "is not a duration"),
        ("  poet:\n", "  poet:\n    sleep_after: 1m\n", "experts.poet", "for workers that the gateway launches"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_launch_or_an_adapter_is_told_by_its_key(old: str, new: str, key: str, says: str) -> None:
    assert old in LAUNCHED
    problem = the_refusal(LAUNCHED.replace(old, new))
    assert problem.key == key
    assert says in problem.message


def test_values_out_of_the_environment_are_checked_like_any_other_and_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAP", "64")
    monkeypatch.setenv("HOST", "10.0.0.5:8000")
    monkeypatch.setenv("WAIT", "hunter2-hunter2")
    text = good("max_in_flight: 64", "max_in_flight: ${CAP}").replace("10.0.0.5:8000", "${HOST}")
    text = text.replace("total: 10m", "total: ${ABSENT_KEY:-10m}")
    file = parse_experts(text)
    coder, plain = file.experts["coder"], parse_experts(good()).experts["coder"]
    assert coder == plain
    assert "${HOST}" in text
    problem = the_refusal(text.replace("connect: 500ms", "connect: ${WAIT}"))
    assert problem.message.startswith("'${WAIT}' is not a duration")
    for name in ("CAP", "HOST"):
        monkeypatch.setenv(name, "hunter2 hunter2")
        assert "hunter2" not in str(the_refusal(text))
        monkeypatch.setenv(name, {"CAP": "64", "HOST": "10.0.0.5:8000"}[name])


def test_a_reference_that_leads_nowhere_is_one_problem_and_hides_no_other() -> None:
    text = good("connect: 500ms", "connect: ${ABSENT_KEY}").replace("  confidence_floor: 0.6", "  confidence_floor: 7")
    assert [(p.line, p.message) for p in refusals(text)] == [
        (3, "input should be less than or equal to 1"),
        (line_of(text, "ABSENT"), "the environment variable ABSENT_KEY is not set"),
    ]


def test_secrets_come_out_of_files_beside_the_one_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "coder").write_text("of-a-file\n", "utf-8")
    (tmp_path / "base.yaml").write_text(good("${DOCUMENTS_KEY}", "file:keys/coder"), "utf-8")
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "top.yaml"
    path.write_text("extends: ../base.yaml\n", "utf-8")
    file = load_experts(path)
    assert file.experts["coder"].upstream.api_key == "of-a-file"
    assert file.sources is not None
    assert [place.resolve() for place in file.sources.places] == [
        path,
        tmp_path / "base.yaml",
        tmp_path / "keys" / "coder",
    ]
    assert "of-a-file" not in repr(file)
    (tmp_path / "keys" / "coder").unlink()
    with pytest.raises(ConfigError, match=r"^\.\./base\.yaml:18:16: .*\.api_key: the file .*keys/coder is not there$"):
        load_experts(path)


def test_an_upper_file_changes_what_it_says_and_its_mistakes_are_told_in_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(good(), "utf-8")
    path = tmp_path / "staging.yaml"
    path.write_text(
        "extends: base.yaml\naliases: {gpt-4o-mini: null}\nexperts:\n  coder:\n    upstream: {vllm: http://localhost:1/v1}\n",
        "utf-8",
    )
    file = load_experts(path)
    assert file.aliases == {}
    upstream = file.experts["coder"].upstream
    assert [replica.url for replica in upstream.vllm] == ["http://localhost:1/v1"]
    assert upstream.api_key == SECRET
    assert file.experts["general"] == parse_experts(good()).experts["general"]
    path.write_text(
        "extends: base.yaml\nexperts:\n  coder: {fallbacks: [generl], model: null}\n  general: null\n", "utf-8"
    )
    with pytest.raises(ConfigError) as caught:
        load_experts(path)
    assert [str(problem) for problem in caught.value.problems] == [
        "staging.yaml:3:23: experts.coder.fallbacks.0: no expert 'generl'; known are coder",
        "staging.yaml:3:39: experts.coder.model: is missing",
        "base.yaml:4:13: router.fallback: no expert 'general'; known are coder",
        "base.yaml:9:3: domains.legal: no expert serves this domain",
    ]


def test_a_file_laid_over_itself_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(good(), "utf-8")
    path = tmp_path / "top.yaml"
    path.write_text(f"extends: base.yaml\n{good()}", "utf-8")
    same = {"digest": "", "sources": None}
    assert load_experts(path).model_copy(update=same) == parse_experts(good()).model_copy(update=same)
