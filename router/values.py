"""Values: what a single value of experts.yaml may say: durations, addresses, secrets, languages, prices.

Each is a type for Pydantic, which tells what is wrong in place of a ValueError's traceback; no message repeats a secret.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from router.references import NAME, secret, setting


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# Those that a prompt can be found to be in (see language.py): an expert for any other would never be preferred.
LANGUAGES = _words(
    "af am an ar as av az ba be bg bh bn bo br bs ca ce co cs cv cy da de dv el en eo es et eu fa fi fr fy ga gd gl gn gu gv "
    "he hi hr ht hu hy ia id ie io is it ja jv ka kk km kn ko ku kv kw ky la lb li lo lt lv mg mk ml mn mr ms mt my ne nl nn "
    "no oc or os pa pl ps pt qu rm ro ru sa sc sd si sk sl so sq sr su sv sw ta te tg th tk tl tr tt ug uk ur uz vi vo wa yo zh"
)
# What people write for a language: the code of a country where it is spoken, an older or a longer code, its name.
MEANT = dict(
    word.split("=", 1)
    for word in _words(
        "jp=ja cn=zh tw=zh hk=zh kr=ko vn=vi in=id cz=cs dk=da se=sv gr=el ua=uk by=be rs=sr al=sq ee=et ge=ka kz=kk mm=my kh=km "
        "np=ne bd=bn pk=ur ph=tl ir=fa il=he iw=he eg=ar us=en gb=en mx=es at=de "
        "ara=ar zho=zh deu=de ger=de eng=en fra=fr fre=fr hin=hi ind=id ita=it jpn=ja kor=ko mya=my nld=nl pol=pl por=pt rus=ru "
        "spa=es swe=sv tha=th tur=tr ukr=uk vie=vi "
        "arabic=ar bengali=bn burmese=my chinese=zh czech=cs danish=da dutch=nl english=en finnish=fi french=fr german=de "
        "greek=el hebrew=he hindi=hi hungarian=hu indonesian=id italian=it japanese=ja khmer=km korean=ko malay=ms norwegian=no "
        "persian=fa polish=pl portuguese=pt romanian=ro russian=ru spanish=es swedish=sv thai=th turkish=tr ukrainian=uk urdu=ur "
        "vietnamese=vi"
    )
)


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


def _setting(value: Any) -> Any:
    """A value for a worker's environment: as it stands, or out of the gateway's own or a file."""
    if isinstance(value, bool):
        raise ValueError("write 1, or true in quotes: whether an environment says true or True is for the program")
    if isinstance(value, int | float):
        return str(value)
    return _word(setting(value) if isinstance(value, str) else value)


def _word(value: Any) -> Any:
    """What a program can be started with, as an argument or in its environment."""
    if not isinstance(value, str):
        return value
    if "\0" in value:
        raise ValueError("no program can be given a NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("half a character (a lone surrogate) stands in it") from None
    return value


def _language(value: str) -> str:
    if value in LANGUAGES:
        return value
    meant = _meant(value[:40])
    hint = f"did you mean {meant!r}?" if meant else "write its two letters in ISO 639-1, such as ja"
    raise ValueError(f"{value[:40]!r} is not a language that the router can tell; {hint}")


def _meant(said: str) -> str | None:
    """The language that was probably meant, None where nothing is near."""
    said = re.split("[-_]", said.strip().lower())[0]  # ja-JP
    if said in LANGUAGES:
        return said
    near = difflib.get_close_matches(said, MEANT, n=1, cutoff=0.75)
    return MEANT[near[0]] if near else None


def about(description: str, *examples: Any) -> Any:
    """What editors and the reference say of a key: what it is for, and values that it may have."""
    return Field(description=description, examples=list(examples))


_DURATION = r"^\s*\d+(\.\d+)?\s*(ms|s|m|h)\s*$"
_SECRET = rf"^(\$\{{{NAME}(:-)?\}}|file:.+)$"

# What an editor is told of those that are read from something else than they become.
Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(gt=0, allow_inf_nan=False),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _DURATION}, {"type": "number", "exclusiveMinimum": 0}]}),
]
HttpUrl = Annotated[
    str, AfterValidator(_http_url), WithJsonSchema({"type": "string", "pattern": r"^https?://[^\s@?#\\]+$"})
]
Secret = Annotated[str, AfterValidator(secret), WithJsonSchema({"type": "string", "pattern": _SECRET})]
Setting = Annotated[str, BeforeValidator(_setting), WithJsonSchema({"type": ["string", "number"]})]
Word = Annotated[str, BeforeValidator(_word)]
Name = Annotated[str, Field(min_length=1), BeforeValidator(_word)]
Language = Annotated[str, AfterValidator(_language), WithJsonSchema({"enum": sorted(LANGUAGES)})]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
