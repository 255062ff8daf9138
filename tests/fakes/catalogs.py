"""Catalogues of models that nobody made."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from router.cataloguing.catalog import Catalog
from router.cataloguing.entry import Model

PAGE = "https://maker.example/model"
ENTRY: dict[str, Any] = {
    "name": "Maker/Model-7B",
    "maker": "Maker",
    "family": "Llama",
    "tuned_from": "Maker/Base-7B",
    "released": "2024-07",
    "parameters": {"total": 8.03, "active": 8.03},
    "architecture": {
        "class": "LlamaForCausalLM",
        "layers": 32,
        "hidden": 4096,
        "heads": 32,
        "kv_heads": 8,
        "head_dim": 128,
    },
    "context": 131072,
    "licence": {"id": "Apache-2.0", "kind": "permissive", "limits": ""},
    "openness": {
        "training_data": {"open": "no", "source": PAGE},
        "weights": {"open": "yes", "source": PAGE},
        "evaluation_code": {"open": "partly", "source": PAGE},
    },
    "tasks": ["code", "general"],
    "languages": ["en", "ja"],
    "scores": [{"benchmark": "HumanEval", "score": 72.6, "source": PAGE, "date": "2024-07"}],
    "serve": ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"],
    "price": {"input": 0.03, "output": 0.06, "source": PAGE, "date": "2026-06", "provider": "Host"},
    "sources": dict.fromkeys(
        (
            "maker",
            "parameters",
            "architecture",
            "context",
            "licence",
            "tuned_from",
            "released",
            "tasks",
            "languages",
            "serve",
        ),
        PAGE,
    ),
    "note": "",
}


def entry(**changes: Any) -> dict[str, Any]:
    """ENTRY, changed: a mapping replaces keys of a mapping, None takes a key away, anything else replaces it."""
    made = copy.deepcopy(ENTRY)
    for key, value in changes.items():
        if value is None:
            made.pop(key, None)
            made["sources"].pop(key, None)
        elif isinstance(value, Mapping) and isinstance(made.get(key), dict):
            made[key] = {k: v for k, v in (made[key] | dict(value)).items() if v is not None}
        else:
            made[key] = value
    return made


def model(**changes: Any) -> Model:
    return Model.model_validate(entry(**changes))


def catalog(**models: Model) -> Catalog:
    """With '-' for '_' in the keys."""
    return Catalog({key.replace("_", "-"): one for key, one in models.items()})


def text_of(**entries: Mapping[str, Any]) -> str:
    """A catalogue's text; JSON is YAML. With '-' for '_' in the keys."""
    return json.dumps({"models": {key.replace("_", "-"): value for key, value in entries.items()}}, indent=1)
