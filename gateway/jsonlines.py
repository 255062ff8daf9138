"""What processes of one gateway tell each other: messages as lines of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec


def line(message: Any) -> bytes:
    """A message, which is a msgspec.Struct, as one line."""
    return msgspec.json.encode(message, enc_hook=str) + b"\n"


def read(text: bytes, kind: Any) -> Any:
    """A message of `kind`. Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=kind, dec_hook=_hook)


def _hook(kind: Any, value: Any) -> Any:
    """Paths are written as text."""
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"no message holds a {kind}")
