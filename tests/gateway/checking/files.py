"""Experts files to ask the rules of."""

from __future__ import annotations

import json
from typing import Any

from gateway.checking.rule import Rule, Warned
from router.experts import ExpertsFile, parse_experts

Entry = dict[str, Any]


def expert(name: str, **changes: Any) -> Entry:
    """A priced expert at an address of its own."""
    return {
        "model": f"model-of-{name}",
        "domains": {"general": 0.5},
        "upstream": {"vllm": [f"http://{name}:8000/v1"]},
        "price": {"input": 1, "output": 1},
        **changes,
    }


def launched(name: str, args: str = "", **changes: Any) -> Entry:
    upstream = {"launch": {"args": args, **changes.pop("launch", {})}}
    return expert(name, upstream=upstream, **changes)


def file_of(experts: dict[str, Entry], **sections: Any) -> ExpertsFile:
    entries = {name: expert(name, **changes) for name, changes in experts.items()}
    return parse_experts(json.dumps({"version": 1, "experts": entries, **sections}))


def said(rule: Rule, experts: dict[str, Entry], **sections: Any) -> list[Warned]:
    return list(rule(file_of(experts, **sections)))


def places(warned: list[Warned]) -> list[str]:
    """Code and place of each."""
    return [f"{w.code} {'.'.join(map(str, w.path))}" for w in warned]
