"""Draft: an expert, or a domain, that is about to go into experts.yaml, as the lines that a person would write."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from router.cataloguing.entry import HostedPrice

WIDE = 110  # characters of a line of comment
_PLAIN = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._/=+:-]*")
_NOT_TEXT = re.compile(
    r"(?i)(true|false|null|yes|no|on|off|-+|[-+.0-9_e:]+|[-+]?0[xob][0-9a-f_]+)"
)  # nor might be, to YAML
_NUMBER = re.compile(r"0|[1-9][0-9]*")  # is read back as the same text
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True)
class Draft:
    """`domains` have qualities, None where the domain is named alone. It answers at `url`, with a key of the environment variable
    `key`, or as the `adapter` of the model there; without a `url` its worker is launched, with `arguments` on `gpus`. `about` is a
    comment, `context` in tokens."""

    expert: str
    model: str
    domains: Mapping[str, float | None]
    about: str = ""
    url: str | None = None
    key: str | None = None
    adapter: str | None = None
    arguments: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()
    price: HostedPrice | None = None
    context: int | None = None
    capabilities: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """The entry, its key at no indentation."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{scalar(self.expert)}:"
        yield from (f"  # {line}" for line in textwrap.wrap(self.about, WIDE))
        yield f"  model: {scalar(self.model)}"
        yield f"  domains: {_qualities(self.domains)}"
        yield from self._upstream()
        if self.price is not None:
            figures = f"{{input: {_figure(self.price.input)}, output: {_figure(self.price.output)}}}"
            yield f"  price: {figures}  # USD per million tokens, as {self.price.provider} asked in {self.price.date}"
        if self.context is not None:
            yield f"  context_window: {self.context}"
        for name, words in (("capabilities", self.capabilities), ("languages", self.languages)):
            if words:
                yield f"  {name}: {_list(words)}"
        if self.fallbacks:
            yield f"  fallbacks: {_list(self.fallbacks)}"

    def _upstream(self) -> Iterator[str]:
        if self.url is not None:
            key = f', api_key: "${{{self.key}}}"' if self.key else ""
            adapter = f", adapter: {scalar(self.adapter)}" if self.adapter else ""
            yield f"  upstream: {{vllm: [{scalar(self.url)}]{adapter}{key}}}"
            return
        yield "  upstream:"
        yield "    launch:"
        yield "      engine: vllm"
        if self.arguments:
            yield f"      args: {_list(self.arguments)}"
        yield f"      gpus: [{', '.join(map(str, self.gpus))}]"


def domain_lines(name: str, description: str, examples: Sequence[str]) -> list[str]:
    """A domain's entry, its key at no indentation."""
    told = [f"  description: {_quoted(description)}"] if description else []
    return [f"{scalar(name)}:", *told, "  examples:", *(f"    - {_quoted(example)}" for example in examples)]


def _qualities(domains: Mapping[str, float | None]) -> str:
    if all(quality is None for quality in domains.values()):
        return _list([*domains])
    figures = (f"{scalar(name)}: {_figure(0.9 if q is None else q)}" for name, q in domains.items())
    return f"{{{', '.join(figures)}}}"


def _figure(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"


def _list(words: Sequence[str]) -> str:
    return f"[{', '.join(map(scalar, words))}]"


def scalar(word: str) -> str:
    """As YAML has it: bare where that can only be read as this text, else in quotes."""
    if _NUMBER.fullmatch(word) or (_PLAIN.fullmatch(word) and not word.endswith(":") and not _NOT_TEXT.fullmatch(word)):
        return word
    return _quoted(word)


def _quoted(text: str) -> str:
    """In double quotes. What would begin a reference to the environment is written so that it does not."""
    return f'"{"".join(map(_character, text.replace("${", "$${")))}"'


def _character(c: str) -> str:
    if c in _SHORT:
        return _SHORT[c]
    if c.isprintable():
        return c
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
