"""Values that keep to a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIRST_INTEGER, STEP = 7, 35
TEXT = "Paris"
STRINGS = {
    "date": "2026-05-17",
    "date-time": "2026-05-17T08:00:00Z",
    "email": "ada@example.org",
    "uri": "https://example.org/",
}


def instance(schema: Mapping[str, Any], attempt: int = 0) -> Any:
    """A value of the schema. Integers are 7, and 35 more with every `attempt`: a client that found fault gets another."""
    return _value(schema, schema, attempt)


def _value(schema: Mapping[str, Any], root: Mapping[str, Any], attempt: int) -> Any:
    if "$ref" in schema:
        return _value(_found(schema["$ref"], root), root, attempt)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return _value(next(part for part in schema[key] if part.get("type") != "null"), root, attempt)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = next(name for name in kind if name != "null") if isinstance(kind, list) else kind
    if kind == "object":
        return {name: _value(part, root, attempt) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [_value(schema.get("items", {}), root, attempt) for _ in range(max(1, schema.get("minItems", 1)))]
    scalars = {"integer": FIRST_INTEGER + STEP * attempt, "number": 1.5, "boolean": True, "null": None}
    return scalars[kind] if kind in scalars else STRINGS.get(schema.get("format", ""), TEXT)


def _found(reference: str, root: Mapping[str, Any]) -> Any:
    """What a `#/$defs/Name` refers to."""
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found
