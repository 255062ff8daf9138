"""References: values that stand elsewhere. ${NAME} is a variable of the environment, file:PATH the text of a file.

A secret is one of the two and never stands in experts.yaml itself; no message repeats what a reference leads to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from router.textfiles import UnreadableError, read_text

FILE = "file:"
NAME = r"[A-Za-z_][A-Za-z0-9_]*"
SECRET_BYTES = 64 * 1024
ASSUMED = "assumed"  # in place of a secret that is not there
_ASSUMED: ContextVar[bool] = ContextVar("secrets are assumed", default=False)
_REFERENCE = rf"\$\{{(?P<name>{NAME})(?::-(?P<default>[^{{}}]*))?\}}"
_PART = re.compile(rf"\$\$\{{|{_REFERENCE}|\$\{{")
_WHOLE = re.compile(_REFERENCE)


def refers(text: str) -> bool:
    """Whether there is a reference to the environment in it, or what looks like one."""
    return "${" in text


def filled(text: str) -> str:
    """`text` with the environment's values in it: ${NAME} is refused where the variable is not set or empty, ${NAME:-default} is
    the default then, and $${ is a plain ${. Raises ValueError."""
    return _PART.sub(_value, text)


@contextmanager
def secrets_assumed() -> Iterator[None]:
    """Within it a secret that is not there is taken to be: so a file can be checked where its secrets are not."""
    token = _ASSUMED.set(True)
    try:
        yield
    finally:
        _ASSUMED.reset(token)


def secret(text: str) -> str | None:
    """What the whole of `text` refers to; None where it says that there may be none. Raises ValueError."""
    if is_file(text):
        return _fit_for_a_header(_file(text), f"the file {text.removeprefix(FILE)}")
    match = _WHOLE.fullmatch(text)
    if not match:
        raise ValueError("a secret is never written here; name an environment variable, ${NAME}, or a file, file:PATH")
    if match["default"]:
        raise ValueError("a secret is never written here, as a default neither; write ${NAME}, or ${NAME:-} for none")
    if match["default"] is not None and not _environment(match["name"]):
        return None
    if _ASSUMED.get() and not _environment(match["name"]):
        return ASSUMED
    return _fit_for_a_header(filled(text), f"the environment variable {match['name']}")


def setting(text: str) -> str:
    """A text that may be secret and need not be: what file:PATH refers to, else as `filled`. Raises ValueError."""
    return _file(text) if is_file(text) else _PART.sub(_value_or_assumed, text)


def _value_or_assumed(match: re.Match[str]) -> str:
    absent = match["name"] is not None and match["default"] is None and not _environment(match["name"])
    return ASSUMED if absent and _ASSUMED.get() else _value(match)


def is_file(text: str) -> bool:
    """Whether it refers to a file. A file:// address does not: it is a text like any other."""
    return text.startswith(FILE) and not text.startswith("file://")


def _value(match: re.Match[str]) -> str:
    name, default = match["name"], match["default"]
    if match[0] == "$${":
        return "${"
    if name is None:
        how = "${NAME} or ${NAME:-default}, with no brace in the default"
        raise ValueError(f"${{ begins a reference: {how}; for the two characters themselves write $${{")
    value = _environment(name) or default
    if value is None:
        raise ValueError(f"the environment variable {name} is {'empty' if name in os.environ else 'not set'}")
    return value


def _environment(name: str) -> str:
    return os.environ.get(name, "").strip()  # what was read from a file often ends in a newline


def _file(text: str) -> str:
    path = text.removeprefix(FILE)
    if path and _ASSUMED.get() and not os.path.exists(path):
        return ASSUMED
    if not path:
        raise ValueError("file: is followed by the path of a file")
    try:
        found = read_text(Path(path), SECRET_BYTES).rstrip("\r\n")
    except UnreadableError as error:
        raise ValueError(f"the file {path} {'is no text in UTF-8' if error.place else error}") from None
    if not found:
        raise ValueError(f"the file {path} is empty")
    return found


def _fit_for_a_header(value: str, what: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{what} holds characters that no HTTP header can carry")
    return value
