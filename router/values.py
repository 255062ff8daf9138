"""Values: what a single value of experts.yaml may say: durations, addresses, secrets, languages, prices.

Each is a type for Pydantic, which tells what is wrong in place of a ValueError's traceback; no message repeats a secret.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)\s*", value)
        if not match:
            raise ValueError(f"{value[:40]!r} is not a duration; write 500ms, 30s, 10m or 1h")
        return float(match[1]) * UNITS[match[2]]
    return value


def _http_url(value: str) -> str:
    what = "not an http:// or https:// address such as http://10.0.0.5:8000/v1"
    parts = urlsplit(value)
    if "@" in value:
        raise ValueError("an address carries no credentials; use api_key: ${NAME}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(what)
    if re.search(r"[\s\\]", value):
        raise ValueError(what)
    try:
        _ = parts.port
        parts.hostname.encode("idna")
    except ValueError:  # UnicodeError is one
        raise ValueError(f"{what}: its host or port is wrong") from None
    return value.rstrip("/")


def _secret(value: str) -> str:
    match = re.fullmatch(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value)
    if not match:
        raise ValueError("a secret is never written here; name an environment variable: ${NAME}")
    secret = os.environ.get(match[1], "").strip()  # a mounted secret often ends in a newline
    if not secret:
        raise ValueError(f"the environment variable {match[1]} is not set")
    if not (secret.isascii() and secret.isprintable()):
        raise ValueError(f"the environment variable {match[1]} holds characters that no HTTP header can carry")
    return secret


def _language(value: str) -> str:
    if not re.fullmatch(r"[a-z]{2}", value):
        raise ValueError(f"{value[:40]!r} is not a language; write its two letters in ISO 639-1, such as ja")
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Secret = Annotated[str, AfterValidator(_secret)]
Language = Annotated[str, AfterValidator(_language)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
