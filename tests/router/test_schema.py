"""The schema for editors says what the parser says, as far as one can see without looking elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import ConfigError
from router.experts import parse_experts
from router.schema import experts_schema
from router.yamlfile import YamlFile

ROOT = Path(__file__).parents[2]
SCHEMA = experts_schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
SHIPPED = ["experts.yaml", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "deploy").rglob("experts*.yaml")))]


def whole(text: str) -> bool:
    """Whether the schema takes it. JSON is read as such, which is quicker."""
    data = json.loads(text) if text.startswith("{") else YamlFile.parse(text, "experts.yaml").data
    return bool(VALIDATOR.is_valid(data))


def parses(text: str) -> bool:
    try:
        parse_experts(text)
    except ConfigError:
        return False
    return True


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


def test_it_is_a_schema_and_the_committed_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    committed = (ROOT / "experts.schema.json").read_text("utf-8")
    assert committed == json.dumps(SCHEMA, indent=2, ensure_ascii=False) + "\n", (
        "run: moe-gateway schema --output experts.schema.json"
    )


def test_every_key_is_described_with_examples_that_are_right() -> None:
    keys = 0
    for part in objects(SCHEMA):
        for name, key in part.get("properties", {}).items() if part.get("additionalProperties") is False else ():
            keys += 1
            assert key.get("description"), name
            assert key.get("examples"), name
            own = jsonschema.Draft7Validator(key | {"definitions": SCHEMA["definitions"]})
            for example in key["examples"]:
                assert own.is_valid(example), f"{name}: {example}"
    assert keys > 130


@pytest.mark.parametrize("name", SHIPPED)
def test_files_that_are_shipped_fit_and_point_at_it(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert whole(text)
    match = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert match
    assert ((ROOT / name).resolve().parent / match[1]).resolve() == ROOT / "experts.schema.json"


def blocks() -> Iterator[tuple[str, Any]]:
    """Those of the pages that have experts in them, with where they begin."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text("utf-8")
        for match in re.finditer(r"^```yaml[^\n]*\n(.*?)^```", text, re.M | re.S):
            data = YamlFile.parse(match[1], page.name).data if "experts:" in match[1] else None
            if isinstance(data, dict) and isinstance(data.get("experts"), dict):
                yield f"{page.name}:{text[: match.start()].count(chr(10)) + 1}", data


def test_what_the_pages_say_of_experts_fits() -> None:
    part = jsonschema.Draft7Validator(
        {**SCHEMA["then"], "definitions": SCHEMA["definitions"]}
    )  # they leave out what is usual
    found = {place: [error.message for error in part.iter_errors(data)] for place, data in blocks()}
    assert len(found) > 3
    assert {place: errors for place, errors in found.items() if errors} == {}


MANY: dict[str, Any] = {
    "coder": {
        "model": "m",
        "domains": {"code": 0.9},
        "upstream": {"vllm": ["http://a:1/v1", {"url": "http://b:1/v1", "weight": 2, "max_in_flight": 3}]},
        "timeouts": {"connect": "2s", "first_byte": 60, "idle": "30s", "total": "10m"},
        "max_in_flight": 64,
        "queue": {"length": 0, "wait": "1s"},
        "affinity": "session",
        "hedge": "p95",
        "heartbeat": "15s",
        "endpoints": ["chat"],
        "defaults": {"system": "x", "temperature": 0.2, "top_p": 1, "max_tokens": 5},
        "price": {"input": 0.1, "output": 0.2, "cached_input": 0},
        "energy": {"watts": 5},
        "context_window": 5,
        "capabilities": ["tools"],
        "lacks": ["n", "developer"],
        "languages": ["ja"],
        "fallbacks": ["legalist"],
    },
    "legalist": {
        "model": "m",
        "domains": ["general", "legal"],
        "upstream": {
            "launch": {"gpus": [0], "args": "--a 1", "env": {"A": "b", "C": 1}, "replicas": 1, "sleep_level": 2}
        },
        "sleep_after": "1m",
        "price": {"gpu_hour": 2, "gpus": 1},
    },
    "adapted": {
        "model": "m",
        "domains": ["bio"],
        "upstream": {"worker": "legalist", "adapter": {"name": "a", "path": "/a"}},
    },
    "small": {"model": "m", "domains": ["math"], "upstream": {"embedded": "smollm2"}},
}
FILE: dict[str, Any] = {
    "version": 1,
    "router": {"confidence_floor": 0.5, "fallback": "coder", "cpu_hour": 0},
    "baseline": {"name": "ours", "input": 1, "output": 2},
    "aliases": {"gpt": "auto"},
    "domains": {"legal": {"description": "law", "examples": ["a b", "c d", "e f", "g h", "i j"]}},
    "experts": MANY,
}


def changed(path: str, value: Any) -> str:
    """FILE with another value at a path; an absent one is added, and ... takes the key away."""
    file = json.loads(json.dumps(FILE))
    *above, last = path.split(".")
    place = file
    for step in above:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if value is ...:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return json.dumps(file)


RIGHT: list[tuple[str, Any]] = [
    ("router", None),
    ("baseline", "gpt-4o"),
    ("baseline", None),
    ("aliases", None),
    ("domains.code", None),
    ("extends", None),
    ("experts.coder.upstream.vllm", "http://a:1/v1"),
    ("experts.coder.upstream.vllm.0", "https://[::1]:8000/v1"),
    ("experts.coder.domains", ["code", "math"]),
    ("experts.coder.hedge", "2s"),
    ("experts.coder.hedge", None),
    ("experts.coder.price", None),
    ("experts.coder.timeouts.total", 0.5),
    ("experts.coder.max_in_flight", "${NO_SUCH_CAP:-64}"),
    ("experts.coder.affinity", "${NO_SUCH_CAP:-none}"),
    ("experts.coder.timeouts.total", "${NO_SUCH_CAP:-5m}"),
    ("experts.coder.upstream.api_key", "${NO_SUCH_KEY:-}"),
    ("experts.legalist.upstream.launch.args", ["--a", 1, 2.5]),
    ("experts.adapted.upstream.adapter", "a"),
    ("experts.small.upstream", {"litellm": "openai/x", "base_url": "http://x/v1"}),
]
WRONG: list[tuple[str, Any]] = [
    ("version", ...),
    ("version", 2),
    ("experts", ...),
    ("experts", {}),
    ("experts.coder", None),
    ("experts.auto", MANY["small"]),
    ("experts.a b", MANY["small"]),
    ("expert", {}),
    ("domains", {}),
    ("domains.Legal", {}),
    ("domains.legal.example", []),
    ("domains.legal.examples", "a b"),
    ("router.fallback", 5),
    ("router.confidence_floor", 1.5),
    ("router.confidence_floor", "high"),
    ("baseline", 5),
    ("baseline.input", ...),
    ("aliases", ["gpt"]),
    ("extends", 5),
    ("experts.coder.model", ...),
    ("experts.coder.model", ""),
    ("experts.coder.modle", "m"),
    ("experts.coder.domains", ...),
    ("experts.coder.domains", {}),
    ("experts.coder.domains", []),
    ("experts.coder.domains.code", 2),
    ("experts.coder.upstream", {}),
    ("experts.coder.upstream.embedded", "smollm2"),
    ("experts.coder.upstream.base_url", "http://a/v1"),
    ("experts.coder.upstream.vllm.0", "a:1"),
    ("experts.coder.upstream.vllm.0", "http://me:pw@a/v1"),
    ("experts.coder.upstream.vllm.1.url", ...),
    ("experts.coder.upstream.vllm.1.weight", 0),
    ("experts.coder.upstream.api_key", "sk-1"),
    ("experts.coder.upstream.api_key", "${NO_SUCH_KEY:-sk-1}"),
    ("experts.coder.timeouts.total", "10 minutes"),
    ("experts.coder.timeouts.total", 0),
    ("experts.coder.max_in_flight", 0),
    ("experts.coder.max_in_flight", 1.5),
    ("experts.coder.max_in_flight", "many"),
    ("experts.coder.affinity", "sticky"),
    ("experts.coder.hedge", "p99"),
    ("experts.coder.hedge", -1),
    ("experts.coder.lacks", ["developr"]),
    ("experts.coder.endpoints", ["chats"]),
    ("experts.coder.endpoints", "chat"),
    ("experts.coder.defaults.temperature", 3),
    ("experts.coder.price", {"input": 1}),
    ("experts.coder.price", {"input": 1, "output": 1, "gpu_hour": 1}),
    ("experts.coder.price.input", -1),
    ("experts.coder.capabilities", ["tool"]),
    ("experts.coder.languages", ["japanese"]),
    ("experts.coder.fallbacks", "legalist"),
    ("experts.legalist.upstream.launch.engine", "sglang"),
    ("experts.legalist.upstream.launch.sleep_level", 3),
    ("experts.legalist.upstream.launch.gpus", [-1]),
    ("experts.legalist.upstream.launch.env.A", True),
    ("experts.legalist.upstream.launch.replicas", 65),
    ("experts.legalist.upstream.api_key", "${PATH}"),
    ("experts.coder.domains.code", True),
    ("experts.coder.max_in_flight", True),
    ("experts.legalist.upstream.launch.gpus", [True]),
    ("experts.adapted.upstream.adapter", ...),
    ("experts.small.upstream.embedded", "gpt-2"),
]


def test_the_file_that_is_changed_is_right() -> None:
    assert whole(json.dumps(FILE))
    assert parses(json.dumps(FILE))


@pytest.mark.parametrize(("path", "value"), RIGHT)
def test_what_the_parser_takes_the_schema_takes(path: str, value: Any) -> None:
    assert (parses(changed(path, value)), whole(changed(path, value))) == (True, True)


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_what_the_parser_refuses_the_schema_refuses(path: str, value: Any) -> None:
    assert (parses(changed(path, value)), whole(changed(path, value))) == (False, False)


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_a_mistake_is_told_once_and_by_the_names_of_keys_alone(path: str, value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        parse_experts(changed(path, value))
    keys = [problem.key for problem in error.value.problems]
    assert not [key for key in keys if re.search(r"[\[(<]", key)]
    assert len(keys) == len(set(keys)) or path == "domains.Legal"  # which is wrong in three ways


def paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if path:
        yield ".".join(path)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, str(key)))


@settings(max_examples=100)
@given(
    st.sampled_from(sorted(paths(FILE))), st.sampled_from([None, "", "x", -1, 0, 1, 1.5, True, [], {}, ["x"], {"x": 1}])
)
def test_whatever_the_schema_refuses_the_parser_refuses(path: str, value: Any) -> None:
    text = changed(path, value)
    if parses(text):
        assert whole(text)


OVERLAYS = [
    ("extends: base.yaml\nexperts: {coder: {max_in_flight: 8, price: null}}", True),
    ("extends: [a.yaml, b.yaml]\nexperts: {coder: null}\ndomains: null", True),
    ("extends: base.yaml\nexperts: {coder: {upstream: {vllm: null, launch: {gpus: [0]}}}}", True),
    ("extends: base.yaml\nexperts: {coder: {max_in_flite: 8}}", False),
    ("extends: base.yaml\nexperts: {coder: {max_in_flight: many}}", False),
    ("extends: base.yaml\nexperts: {coder: {upstream: {vllm: [{weight: 2}]}}}", False),
    ("experts: {coder: {max_in_flight: 8}}", False),
]


@pytest.mark.parametrize(("text", "right"), OVERLAYS)
def test_a_file_that_extends_another_may_leave_out_and_take_away(text: str, right: bool) -> None:
    assert whole(text) is right
