"""Scalars: what YAML takes a single text for."""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.resolver import VersionedResolver

MAX_DIGITS = 400
TAG = "tag:yaml.org,2002:"
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")


def plain_value(text: str) -> Any:
    """What YAML takes a text without quotes for: a number, true or false, nothing, or the text."""
    tag = VersionedResolver().resolve(ScalarNode, text, (True, False))
    try:
        return value_of(str(tag).removeprefix(TAG), text)
    except ValueError:
        return text


def value_of(kind: str, text: str) -> Any:
    """The value of a text of a kind, which is what its tag names: str, int and so on. Raises ValueError where it is none."""
    if kind == "null":
        return None
    if kind == "bool" and text in _TRUE + _FALSE:
        return text in _TRUE
    if kind in ("int", "float") and len(text) <= MAX_DIGITS:
        try:
            return _integer(text) if kind == "int" else _float(text)
        except ValueError:
            pass
    if kind in ("str", "timestamp"):
        return text
    raise ValueError(kind)


def _integer(text: str) -> int:
    plain = text.replace("_", "")
    return int(plain, 0) if re.match(r"[-+]?0[xob]", plain) else int(plain)


def _float(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
