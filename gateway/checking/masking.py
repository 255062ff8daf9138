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

# Nothing below goes back over what it has read (++ and *+), so that a line of any length is judged in one pass.
_KEY_OF = r"(?<![\w.-])[\"']?(?P<name>[\w.-]++)[\"']?\s*+"
_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth|bearer", re.I)
_ENTRY = re.compile(rf"{_KEY_OF}[:=]\s*+(?=(?P<value>[^\s#]))")
_FLAG = re.compile(r"(?<![\w-])--(?P<name>[\w-]++)[\"']?(?:\s++|\s*+,\s*+)[\"']?(?P<value>[^\s,\"'}\]]++)")
_FLAG_AT_END = re.compile(r"(?<![\w-])--(?P<name>[\w-]++)[\"']?\s*+,?+\s*+$")
_QUOTED = re.compile(r""""(?:\\.|[^"\\])*+"|'(?:''|[^'])*+'""")
_IN_FLOW = re.compile(r"(?:\$\{[^}]*+\})?[^,}\]]*+(?=[,}\]])")
# A key whose values are secret, with which the lines that are indented more than it belong: the first of a line, or its last.
_FIRST = re.compile(r"\s*+(?:-\s++)?[\"']?(?P<name>[\w.-]++)[\"']?\s*+:")
_LAST = re.compile(rf"{_KEY_OF}:\s*+(?:[|>][-+\d]*+\s*+)?(?:#|$)")
_UNCLOSED = re.compile(rf"{_KEY_OF}:\s*+(?P<quote>[\"'])(?:(?!(?P=quote)).)*+$")
_ENV = re.compile(r"(?<![\w.-])[\"']?env[\"']?\s*+:\s*+\{")
_REFERENCE = r"""["']?(?:\$\{[A-Za-z_]\w*+(?::-)?\}|file:[^\s,}"']++)["']?"""
_ENV_OF_REFERENCES = re.compile(rf"(?:\s*+[\w\"']++\s*+:\s*+{_REFERENCE}\s*+,?+)*+\s*+\}}")
# The beginnings that providers give their keys, and words of letters and digits as long as no name is.
_KEY = re.compile(
    r"\b(?:sk|pk|rk|hf|gh[opusr]|glpat|xox[abeprs]|AKIA|ASIA|AIza|eyJ)[-_A-Za-z0-9.]{8,}"
    r"|\b(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{24,}"
)
_HARMLESS = re.compile(rf"{_REFERENCE}|true|false|null|~|-", re.I)  # the last of ${NAME_OF_KEY:-}
_IS_FLAG = re.compile(r"--[\w-]++")
_COMMENT = re.compile(r"\s#")


def masked(lines: Sequence[str], number: int) -> tuple[str, list[Span]]:
    """The line of that number, counted from 1, as it may be shown, and which characters of the true line stand behind each MASK."""
    line = lines[number - 1]
    if not line or line.isspace():
        return line, []
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


def masked_words(words: Sequence[str]) -> list[str]:
    """Arguments of a command: what follows a flag for a key, a token or a password is masked, and what looks like one."""
    return [
        MASK if _IS_FLAG.fullmatch(before) and masked([f"{before} {word}"], 1)[1] else masked([word], 1)[0]
        for before, word in zip(["", *words], words, strict=False)
    ]


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
    first = min((place for mark in "{[" if (place := line.find(mark)) >= 0), default=len(line))
    last = max(line.rfind(mark) for mark in ",}]")
    end = 0
    for entry in filter(_is_secret, _ENTRY.finditer(line)):
        if (start := entry.start("value")) >= end:  # else it is a part of the one before
            end = _end(line, start, in_flow=first < start <= last)
            yield start, end
    for flag in filter(_is_secret, _FLAG.finditer(line)):
        if not flag["name"].endswith("tokens"):  # which are counted, as in --max-num-batched-tokens
            yield flag.span("value")
    for env in _ENV.finditer(line):
        if not _ENV_OF_REFERENCES.match(line, env.end()):
            yield env.end(), len(line)
    references = [match.span() for match in re.finditer(_REFERENCE, line)]
    for start, end in (*_credentials(line), *(match.span() for match in _KEY.finditer(line))):
        if not any(begin <= start < until for begin, until in references):
            yield start, end


def _is_secret(named: re.Match[str]) -> bool:
    """Whether the values of what is called so are secret; those of --tokenizer and max_tokens are not."""
    name = named["name"].lower()
    return not name.startswith(("max_tokens", "tokenizer")) and _SECRET_NAME.search(name) is not None


def _credentials(line: str) -> Iterator[Span]:
    """What stands before the @ of an address."""
    for word in re.finditer(r"\S++", line):
        start, end = word[0].find("//") + 2, word[0].rfind("@")
        if 2 <= start < end:
            yield word.start() + start, word.start() + end


def _end(line: str, start: int, in_flow: bool) -> int:
    """Where the value ends that begins there: at its closing quote; in a flow mapping at what follows; else with the line."""
    if line[start] in "\"'":
        quoted = _QUOTED.match(line, start)
        return quoted.end() if quoted else len(line)
    if in_flow and (value := _IN_FLOW.match(line, start)):
        return start + len(value[0].rstrip())
    comment = _COMMENT.search(line, start)
    return start + len(line[start : comment.start() if comment else None].rstrip())


def _is_inside_a_secret(lines: Sequence[str], number: int) -> bool:
    """Whether the line goes on with, or stands under, a key whose values are secret."""
    indent = _indent(lines[number - 1])
    above = (line for line in reversed(lines[: number - 1]) if line.strip() and not line.lstrip().startswith("#"))
    for place, line in enumerate(above):
        if place == 0 and any(map(_is_secret, _FLAG_AT_END.finditer(line))):
            return True
        if _indent(line) < indent:
            if _opens(line):
                return True
            indent = _indent(line)
            if place == 0 and _leaves_open(line):
                return True
        elif _leaves_open(line):
            return True
        if indent == 0:
            break
    return False


def _opens(line: str) -> bool:
    first = _FIRST.match(line)
    if first and (first["name"].lower() == "env" or _is_secret(first)):
        return True
    return any(map(_is_secret, _LAST.finditer(line)))


def _leaves_open(line: str) -> bool:
    """Whether a text in quotes, which is secret, goes on in the next line."""
    return ":" in line and any(map(_is_secret, _UNCLOSED.finditer(line)))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _rest_of(line: str) -> Span:
    """All that stands in a line, but for the plain name of an entry."""
    entry = re.match(r"\s*(?:-\s+)?[A-Za-z_][A-Za-z0-9_]{0,39}\s*:\s+(?=\S)", line)
    return entry.end() if entry else _indent(line), len(line.rstrip())
