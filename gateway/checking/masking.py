"""Masking: a line of an experts.yaml fit to be shown, with nothing in it that may be a secret.

A file that is wrong may well hold a key where a reference belongs, and the place of the error is just there. What is masked is
judged by the text alone, since the file may not even be YAML: the value of whatever is called a key, token or password, all that
stands under `env`, credentials in an address, and what looks like a key wherever it stands. Rather too much than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

MASK = "••••••"
Span = tuple[int, int]  # of characters in a line: start and end

_NAMED = r"[\"']?(?!max_tokens)[\w.-]*(?:key|token|secret|passw|credential|auth|bearer)[\w.-]*[\"']?"
_ENTRY = re.compile(rf"(?<![\w.-]){_NAMED}\s*[:=]\s*(?=(?P<value>[^\s#]))", re.I)
_QUOTED = re.compile(r""""(?:\\.|[^"\\])*"|'(?:''|[^'])*'""")
_IN_FLOW = re.compile(r"(?:\$\{[^}]*\})?[^,}\]]*(?=[,}\]])")
# A key whose values are secret, with which the lines that are indented more than it belong.
_OPENS = re.compile(rf"^\s*(?:-\s+)?(?:{_NAMED}|[\"']?env[\"']?)\s*:|{_NAMED}\s*:\s*(?:[|>][-+\d]*)?\s*(?:#.*)?$", re.I)
_UNCLOSED = re.compile(rf"{_NAMED}\s*:\s*(?P<quote>[\"'])(?:(?!(?P=quote)).)*$", re.I)
_ENV = re.compile(r"(?<![\w.-])[\"']?env[\"']?\s*:\s*\{")
_REFERENCE = r"""["']?(?:\$\{[A-Za-z_]\w*(?::-)?\}|file:[^\s,}"']+)["']?"""
_ENV_OF_REFERENCES = re.compile(rf"(?:\s*[\w\"']+\s*:\s*{_REFERENCE}\s*,?)*\s*\}}")
_CREDENTIALS = re.compile(r"(?<=//)\S+(?=@)")
# The beginnings that providers give their keys, and words of letters and digits as long as no name is.
_KEY = re.compile(
    r"\b(?:sk|pk|rk|hf|gh[opusr]|glpat|xox[abeprs]|AKIA|ASIA|AIza|eyJ)[-_A-Za-z0-9.]{8,}"
    r"|\b(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{24,}"
)
_HARMLESS = re.compile(rf"{_REFERENCE}|true|false|null|~|-", re.I)  # the last of ${NAME_OF_KEY:-}


def masked(lines: Sequence[str], number: int) -> tuple[str, list[Span]]:
    """The line of that number, counted from 1, as it may be shown, and which characters of the true line stand behind each MASK."""
    line = lines[number - 1]
    found = [_rest_of(line)] if _is_inside_a_secret(lines, number) else _secrets(line)
    spans: list[Span] = []
    for start, end in sorted(found):
        if start >= end or _HARMLESS.fullmatch(line[start:end].rstrip()):
            continue
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((start, end))
    ends = [0, *(end for _, end in spans)]
    kept = [line[end:start] for end, (start, _) in zip(ends, spans, strict=False)]
    return "".join(f"{text}{MASK}" for text in kept) + line[ends[-1] :], spans


def shown_column(column: int, spans: Sequence[Span]) -> int:
    """Where a column of the true line, counted from 0, stands in the one that is shown."""
    shift = 0
    for start, end in spans:
        if column >= end:
            shift += len(MASK) - (end - start)
        elif column > start:
            return start + shift
    return column + shift


def _secrets(line: str) -> Iterator[Span]:
    for entry in _ENTRY.finditer(line):
        yield entry.start("value"), _end(line, entry.start("value"))
    for env in _ENV.finditer(line):
        if not _ENV_OF_REFERENCES.match(line, env.end()):
            yield env.end(), len(line)
    references = [match.span() for match in re.finditer(_REFERENCE, line)]
    for match in (*_CREDENTIALS.finditer(line), *_KEY.finditer(line)):
        if not any(start <= match.start() < end for start, end in references):
            yield match.span()


def _end(line: str, start: int) -> int:
    """Where the value ends that begins there: at its closing quote; in a flow mapping at what follows; else with the line."""
    if line[start] in "\"'":
        quoted = _QUOTED.match(line, start)
        return quoted.end() if quoted else len(line)
    in_flow = _IN_FLOW.match(line, start) if re.search(r"[{\[]", line[:start]) else None
    if in_flow:
        return start + len(in_flow[0].rstrip())
    plain = re.match(r".*?(?=\s+#|\s*$)", line[start:])
    return start + (plain.end() if plain else len(line))


def _is_inside_a_secret(lines: Sequence[str], number: int) -> bool:
    """Whether the line goes on with, or stands under, a key whose values are secret."""
    indent = _indent(lines[number - 1])
    above = [line for line in lines[: number - 1] if line.strip() and not line.lstrip().startswith("#")]
    for line in reversed(above):
        if _indent(line) < indent:
            if _OPENS.search(line):
                return True
            indent = _indent(line)
        elif _UNCLOSED.search(line):
            return True
        if indent == 0:
            break
    return bool(above) and _UNCLOSED.search(above[-1]) is not None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _rest_of(line: str) -> Span:
    """All that stands in a line, but for the plain name of an entry."""
    entry = re.match(r"\s*(?:-\s+)?[A-Za-z_][A-Za-z0-9_]{0,39}\s*:\s+(?=\S)", line)
    return entry.end() if entry else _indent(line), len(line.rstrip())
