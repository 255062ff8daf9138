"""Schema: what an experts.yaml may say, as a JSON Schema for editors, made from the models that read it.

It is of draft 7, which editors know best. It says what one can see without looking elsewhere: what a reference leads to, or
whether a fallback is there, is for `moe-gateway check`. A file that extends others may leave out what these have: of such a file
nothing is required, and everything may be null.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from router.experts import NOT_WRITTEN, RESERVED_IDS, VIRTUAL_MODELS, ExpertsFile
from router.laying import EXTENDS
from router.references import NAME

Schema = dict[str, Any]

ROOT = "ExpertsFile"
OVERLAY = "Overlay"  # follows the name of a part as it is in a file that extends others
ANSWERS = ("vllm", "launch", "worker", "embedded", "litellm", "custom")  # of which an upstream has one
NULL: Schema = {"type": "null"}
WORD: Schema = {"type": "string", "minLength": 1}
REFERENCE: Schema = {"$ref": "#/definitions/Reference"}
_ASIDE = ("description", "examples", "default")  # what is said of a value, whatever it may be
_EXTENDED: Schema = {
    "description": "The file that this one is laid over, or several: what stands here counts, null takes away what is there.",
    "examples": ["base.yaml", ["base.yaml", "gpus.yaml"]],
    "anyOf": [WORD, {"type": "array", "items": WORD}, NULL],
}
_REFERENCED: Schema = {
    "description": "A variable of the environment: ${NAME}, or ${NAME:-default}.",
    "type": "string",
    "pattern": rf"\$\{{{NAME}(:-[^}}]*)?\}}",
}


def experts_schema() -> Schema:
    """The schema of a whole experts.yaml."""
    root = ExpertsFile.model_json_schema(ref_template="#/definitions/{model}")
    parts: dict[str, Schema] = {name: part for name, part in root.pop("$defs").items() if name != "Sources"}
    root["properties"] = {name: inner for name, inner in root["properties"].items() if name not in NOT_WRITTEN}
    _add_short_forms(parts | {ROOT: root})
    root["properties"][EXTENDS] = _EXTENDED
    whole = {name: _opened(part) for name, part in (parts | {ROOT: root}).items()}
    overlay = {f"{name}{OVERLAY}": _laid_over(part) for name, part in whole.items()}
    _demand(whole)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "experts.yaml of moe-gateway",
        "description": "The experts that moe-gateway chooses among, the domains, and how it chooses.",
        "type": "object",
        "if": {"required": [EXTENDS], "properties": {EXTENDS: {"not": NULL}}},
        "then": overlay.pop(f"{ROOT}{OVERLAY}"),
        "else": whole.pop(ROOT),
        "definitions": {"Reference": _REFERENCED, **whole, **overlay},
    }


def _add_short_forms(parts: dict[str, Schema]) -> None:
    """What the models understand before Pydantic looks at it."""
    expert, upstream, launch = (parts[name]["properties"] for name in ("Expert", "Upstream", "Launch"))
    url = parts["Replica"]["properties"]["url"]
    upstream["vllm"]["items"] = {"anyOf": [_bare(url), upstream["vllm"]["items"]]}
    _or(upstream, "vllm", _bare(url))
    _or(upstream, "adapter", _bare(parts["Adapter"]["properties"]["name"]))
    launch["args"]["items"] = {"type": ["string", "number"]}
    _or(launch, "args", {"type": "string"})
    expert["domains"]["minProperties"] = expert["domains"].pop("minLength")
    _or(expert, "domains", {"type": "array", "minItems": 1, "items": {"type": "string"}})
    _or(parts["Domain"]["properties"], "examples", {"type": "string", "pattern": "^file:.+"})
    root = parts[ROOT]["properties"]
    root["experts"] |= {"minProperties": 1, "propertyNames": _names(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")}
    root["domains"] |= {"minProperties": 1, "propertyNames": _names(r"^[a-z0-9][a-z0-9_-]{0,31}$")}
    for part in (root["domains"], root["aliases"], parts["Domain"], parts["RouterOptions"]):
        part["type"] = ["object", "null"]  # while a section is empty


def _names(pattern: str) -> Schema:
    return {"pattern": pattern, "not": {"enum": [*VIRTUAL_MODELS, *RESERVED_IDS]}}


def _or(holder: Schema, key: str, other: Schema) -> None:
    """What stands at `key`, or the other."""
    said, value = _aside(holder[key]), _bare(holder[key])
    holder[key] = {**said, "anyOf": [*value.get("anyOf", [value]), other]}


def _demand(parts: dict[str, Schema]) -> None:
    """What has to be there together, of a file that stands alone."""
    parts["Upstream"] |= {
        "oneOf": [{"required": [name]} for name in ANSWERS],
        "dependencies": {
            "worker": ["adapter"],
            "base_url": {"anyOf": [{"required": ["litellm"]}, {"required": ["custom"]}]},
            "api_key": {"not": {"anyOf": [{"required": ["launch"]}, {"required": ["worker"]}]}},
        },
    }


def _opened(schema: Schema) -> Schema:
    """The same, where a reference may stand for a value that it is none of itself."""
    opened = _within(schema, _opened)
    if _is_bound(opened):
        return {**_aside(opened), "anyOf": [_bare(opened), REFERENCE]}
    if "$ref" in opened and _aside(opened):  # draft 7 looks at nothing beside it
        return {**_aside(opened), "allOf": [_bare(opened)]}
    return opened


def _is_bound(schema: Schema) -> bool:
    """Whether it is one value that not every text is."""
    kinds = schema.get("type", [])
    kinds = {kinds} if isinstance(kinds, str) else {*kinds}
    refers = str(schema.get("pattern", "")).startswith(r"^(\$")  # a secret is a reference already
    figure = bool(kinds) and kinds <= {"number", "integer", "boolean"}
    return not refers and (figure or bool({"enum", "const", "pattern"} & {*schema}))


def _laid_over(schema: Schema) -> Schema:
    """The same in a file that extends others: nothing is required, and null takes away."""
    laid = _within(schema, _laid_over)
    laid.pop("required", None)
    if "items" in schema:  # a list is replaced whole
        laid["items"] = schema["items"]
    if "$ref" in laid and laid != REFERENCE:
        laid["$ref"] += OVERLAY
    if laid.get("type") in ("object", "array"):
        laid["type"] = [laid["type"], "null"]
    elif "type" in laid:
        return {**_aside(laid), "anyOf": [_bare(laid), NULL]}
    elif "anyOf" in laid:
        laid["anyOf"] = [*(way for way in laid["anyOf"] if way != NULL), NULL]
    return laid


def _within(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """A copy, less titles and defaults that say nothing, with `change` made to all that stands directly in it."""
    copied = {key: value for key, value in schema.items() if key != "title"}
    if copied.get("default", "") in (None, [], {}) or isinstance(copied.get("default"), dict):
        del copied["default"]
    if "properties" in copied:
        copied["properties"] = {name: change(inner) for name, inner in copied["properties"].items()}
    if "allOf" in copied:
        copied["allOf"] = [change(way) for way in copied["allOf"]]
    if "anyOf" in copied:
        ways = [
            inner
            for way in map(change, copied["anyOf"])
            for inner in (way["anyOf"] if set(way) == {"anyOf"} else [way])
        ]
        copied["anyOf"] = [way for i, way in enumerate(ways) if way not in ways[:i]]
    for key in ("items", "additionalProperties"):
        if isinstance(copied.get(key), dict):
            copied[key] = change(copied[key])
    return copied


def _aside(schema: Schema) -> Schema:
    return {key: schema[key] for key in _ASIDE if key in schema}


def _bare(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in _ASIDE}
