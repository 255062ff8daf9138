"""docs/reference/experts.md: every key of experts.yaml, from the JSON schema that editors are given."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from router.schema import OVERLAY, experts_schema

Schema = dict[str, Any]
INTRODUCTION = """# experts.yaml

Every key, as the gateway reads it. This page is written from the JSON schema (`make reference`), which `moe-gateway schema` prints
for editors; what is wrong in a file, `moe-gateway check` tells by line. A key that is not *required* may be left out, and means
its default then, or nothing. Durations are `500ms`, `30s`, `10m` or `1h`, or seconds as a number. In place of a value may stand
`${NAME}` or `${NAME:-default}`, for a variable of the environment.
"""
MOST = 12  # values that are listed
REFERENCE = "Reference"
SECTION = re.compile(r"#/definitions/(\w+)$")


def experts_page() -> str:
    schema = experts_schema()
    parts = schema["definitions"]
    whole = schema["else"] | {"description": schema["description"]}
    titles = titles_of(whole, parts)
    sections = [section("The file", whole, titles, parts)]
    sections += [section(title, parts[name], titles, parts) for name, title in titles.items()]
    return "\n".join([INTRODUCTION, *sections])


def titles_of(whole: Schema, parts: dict[str, Schema]) -> dict[str, str]:
    """For each part of the file the path by which it is first come to, such as experts.NAME.upstream; in that order."""
    titles: dict[str, str] = {}

    def look(schema: Schema, path: str) -> None:
        for key, value in schema["properties"].items():
            inner = f"{path}{key}.NAME" if any("additionalProperties" in way for way in ways(value)) else f"{path}{key}"
            for name in references(value):
                if name not in titles and "properties" in parts[name]:
                    taken = inner in titles.values()
                    titles[name] = f"{inner} with {parts[name]['required'][0]}" if taken else inner
                    look(parts[name], f"{inner}.")

    look(whole, "")
    return titles


def ways(schema: Schema) -> list[Schema]:
    found: list[Schema] = schema.get("anyOf", [schema])
    return found


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if match := SECTION.match(str(schema.get("$ref", ""))):
            yield match[1]
        for value in schema.values():
            yield from references(value)
    if isinstance(schema, list):
        for value in schema:
            yield from references(value)


def section(title: str, schema: Schema, titles: dict[str, str], parts: dict[str, Schema]) -> str:
    """A table of the part's keys, below what the part is."""
    lines = [f"## {title}", ""]
    if about := schema.get("description"):
        lines += [paragraph(about), ""]
    lines += ["| key | value | default | says |", "|---|---|---|---|"]
    for key, value in schema["properties"].items():
        default = "*required*" if key in schema.get("required", ()) else default_of(value)
        anchor = f'<a id="{slug(title)}-{key}"></a>'
        lines.append(f"| {anchor}`{key}` | {kind(value, titles, parts)} | {default} | {says(value)} |")
    return "\n".join([*lines, ""])


def slug(title: str) -> str:
    """The anchor of a heading, on GitHub as on the site."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def paragraph(text: str) -> str:
    return re.sub(r"\n(?!\n)", " ", text.replace("\n\n", "\0")).replace("\0", "\n\n")


def default_of(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default in (None, [], {}, "") or isinstance(default, dict) else code(default)


def says(schema: Schema) -> str:
    words = [cell(schema.get("description", ""))]
    if examples := schema.get("examples"):
        words.append("For example " + ", ".join(code(example) for example in examples) + ".")
    return " ".join(word for word in words if word)


def code(value: Any) -> str:
    """As it is written in YAML, on one line."""
    text = (
        value
        if isinstance(value, str)
        else f"{value:g}"
        if isinstance(value, float)
        else json.dumps(value, ensure_ascii=False)
    )
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|")


def cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def kind(schema: Schema, titles: dict[str, str], parts: dict[str, Schema]) -> str:
    """What a value may be, in words."""
    if "anyOf" in schema or "allOf" in schema:
        ways = [kind(way, titles, parts) for way in schema.get("anyOf") or schema["allOf"]]
        kept = [way for way in ways if way and not ("duration" in ways and way.startswith("number"))]
        return " or ".join(dict.fromkeys(kept))
    if match := SECTION.match(schema.get("$ref", "")):
        return referred(match[1].removesuffix(OVERLAY), titles, parts)
    if "enum" in schema or "const" in schema:
        named = [code(one) for one in schema.get("enum") or [schema["const"]]]
        return ", ".join(named) if len(named) <= MOST else f"{', '.join(named[:3])} … {named[-1]}"
    kinds = schema.get("type", "anything")
    if "string" in kinds and "ms" in schema.get("pattern", ""):
        return "duration"
    return " or ".join(
        filter(None, (word(one, schema, titles, parts) for one in ([kinds] if isinstance(kinds, str) else kinds)))
    )


def referred(name: str, titles: dict[str, str], parts: dict[str, Schema]) -> str:
    if name == REFERENCE:
        return ""  # the introduction says it of all
    if name in titles:
        return f"[{titles[name]}](#{slug(titles[name])})"
    return kind(parts[name], titles, parts)


def word(name: str, schema: Schema, titles: dict[str, str], parts: dict[str, Schema]) -> str:
    if name == "array":
        return f"list of {kind(schema.get('items', {}), titles, parts)}"
    if name == "object":
        inner = schema.get("additionalProperties")
        return f"names, each with {kind(inner, titles, parts)}" if isinstance(inner, dict) else "mapping"
    return {"string": "text", "null": "", "boolean": "`true`, `false`"}.get(name, bounded(name, schema))


def bounded(name: str, schema: Schema) -> str:
    named = {"integer": "whole number", "number": "number"}.get(name, name)
    low, high = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    bounds = [
        f"from {low:g}" if low is not None else "",
        f"above {above:g}" if above is not None else "",
        f"to {high:g}" if high is not None else "",
    ]
    return " ".join([named, *filter(None, bounds)])
