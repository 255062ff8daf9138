"""Made-up experts files: as data, and written out with the line of every key known."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from router.experts import BUILT_IN_DOMAINS, CAPABILITIES

Path = tuple[str | int, ...]
Data = dict[str, Any]

SECRET_NAME, SECRET = "DOCUMENTS_KEY", "s3cr3t-of-the-documents"
DURATIONS = {"500ms": 0.5, "2s": 2.0, " 1.5 m ": 90.0, "10m": 600.0, "1h": 3600.0}


class Inline(str):
    """A value written as it is, in the line of its key."""

    __slots__ = ()


def written(data: Data) -> tuple[str, dict[Path, int]]:
    """`data` as block YAML, and the line of every key and item in it."""
    lines: list[str] = []
    places: dict[Path, int] = {}

    def emit(value: Any, path: Path, indent: str) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            at = (*path, key)
            head = "-" if isinstance(key, int) else f"{json.dumps(key, ensure_ascii=False)}:"
            if isinstance(item, dict | list) and item:
                lines.append(indent + head)
                places[at] = len(lines)
                emit(item, at, indent + "  ")
            else:
                raw = item if isinstance(item, Inline) else json.dumps(item, ensure_ascii=False)
                lines.append(f"{indent}{head} {raw}")
                places[at] = len(lines)

    emit(data, (), "")
    return "\n".join(lines) + "\n", places


def replaced(data: Data, path: Path, value: Any) -> Data:
    """A copy of `data` with another value at `path`."""
    return _edited(data, path, lambda parent, key: parent.__setitem__(key, value))


def renamed(data: Data, path: Path, new: str) -> Data:
    """A copy of `data` in which the key at the end of `path` is called `new`; the order of the keys stays."""

    def rename(parent: Any, key: Any) -> None:
        pairs = [(new if k == key else k, v) for k, v in parent.items()]
        parent.clear()
        parent.update(pairs)

    return _edited(data, path, rename)


def without(data: Data, path: Path) -> Data:
    """A copy of `data` with nothing at `path`."""
    return _edited(data, path, lambda parent, key: parent.__delitem__(key))


def _edited(data: Data, path: Path, edit: Callable[[Any, Any], None]) -> Data:
    whole = copy.deepcopy(data)
    parent: Any = whole
    for step in path[:-1]:
        parent = parent[step]
    edit(parent, path[-1])
    return whole


LETTERS = st.characters(categories=("L", "M", "N", "P", "S", "Zs"))
WORDS = st.text(LETTERS, min_size=1, max_size=20).filter(
    lambda text: text.strip() and "${" not in text and not text.startswith("file:")  # which are references
)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,11}", fullmatch=True).filter(lambda key: key not in ("auto", "none"))
OWN_DOMAINS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,11}", fullmatch=True).filter(
    lambda name: name not in (*BUILT_IN_DOMAINS, "none")
)
SHARES = st.floats(0, 1)
USD = st.floats(0, 1000) | st.integers(0, 1000)
COUNTS = st.integers(1, 2**40)
SECONDS = st.sampled_from(sorted(DURATIONS)) | st.integers(1, 1000) | st.floats(0.001, 1e6)
URLS = st.sampled_from(["http://10.0.0.5:8000/v1", "https://models.test/v1/", "http://[::1]:9", "http://localhost"])
REPLICAS = URLS | st.fixed_dictionaries({"url": URLS}, optional={"weight": st.floats(0.1, 9)})
UPSTREAMS = st.fixed_dictionaries(
    {"vllm": st.lists(REPLICAS, min_size=1, max_size=3)}, optional={"api_key": st.just(f"${{{SECRET_NAME}}}")}
) | st.just({"embedded": "smollm2"})
DEFAULTS = st.fixed_dictionaries(
    {},
    optional={
        "system": WORDS,
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0.01, 1),
        "max_tokens": COUNTS,
    },
)
TIMEOUTS = st.fixed_dictionaries(
    {}, optional={"connect": SECONDS, "first_byte": SECONDS, "idle": SECONDS, "total": SECONDS}
)
PRICES = st.fixed_dictionaries({"input": USD, "output": USD}, optional={"cached_input": USD})


@st.composite
def experts_documents(draw: st.DrawFn) -> Data:
    """The data of a valid experts.yaml, its sections in any order."""
    ids = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    own = draw(st.lists(OWN_DOMAINS, max_size=2, unique=True))
    domains = st.sampled_from([*BUILT_IN_DOMAINS, *own])
    experts = {key: draw(_experts([other for other in ids if other != key], domains)) for key in ids}
    for domain in own:  # somebody serves it
        served = experts[draw(st.sampled_from(ids))]["domains"]
        if isinstance(served, dict):
            served[domain] = draw(SHARES)
        elif domain not in served:
            served.append(domain)
    data: Data = {"version": 1, "experts": experts}
    if own:
        examples = st.lists(WORDS, min_size=5, max_size=7)
        data["domains"] = {d: {"description": draw(WORDS), "examples": draw(examples)} for d in own}
    options = {
        "confidence_floor": SHARES,
        "fallback": st.sampled_from(ids),
        "encoder": st.sampled_from(["moe-minilm", "moe-static"]) | WORDS.map("{}/model".format),
        "head": st.sampled_from(["kernel", "linear"]),
    }
    rest = st.fixed_dictionaries(
        {},
        optional={
            "router": st.fixed_dictionaries({}, optional=options),
            "baseline": WORDS,
            "aliases": st.dictionaries(
                st.from_regex(r"[a-z]{1,8}/[a-z]{1,8}", fullmatch=True), st.sampled_from([*ids, "auto", "auto:cheap"])
            ),
        },
    )
    data |= draw(rest)
    return {key: data[key] for key in draw(st.permutations(sorted(data)))}


def _experts(others: list[str], domains: st.SearchStrategy[str]) -> st.SearchStrategy[Data]:
    optional: dict[str, st.SearchStrategy[Any]] = {
        "timeouts": TIMEOUTS,
        "max_in_flight": COUNTS,
        "defaults": DEFAULTS,
        "price": PRICES,
        "context_window": COUNTS,
        "capabilities": st.lists(st.sampled_from(CAPABILITIES), unique=True),
    }
    if others:
        optional["fallbacks"] = st.lists(st.sampled_from(others), unique=True)
    return st.fixed_dictionaries(
        {
            "model": WORDS,
            "domains": st.dictionaries(domains, SHARES, min_size=1) | st.lists(domains, min_size=1, unique=True),
            "upstream": UPSTREAMS,
        },
        optional=optional,
    )
