"""What a log record looks like as a line: JSON for machines, columns for people.

Nothing has to be redacted, since nothing is let in: of the gateway's own records the event and FIELDS are written, of an exception
its type and the places in the code, of a library's record what stands in that library's source. Other texts may quote a request.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import msgspec

from gateway.logs.context import served

OURS = "moe_gateway"
# All that `extra` may hold. A test looks for others in the source.
FIELDS = frozenset(
    (
        *(
            "request_id",
            "trace_id",
            "caller",
            "endpoint",
            "status",
            "outcome",
            "error_code",
            "seconds",
            "stream",
            "ttft",
        ),
        *("expert", "replica", "domain", "confidence", "reason", "attempts", "input_tokens", "output_tokens"),
        *(
            "cost_usd",
            "estimated_usd",
            "energy_wh",
            "gco2e",
            "worker",
            "workers",
            "model",
            "adapter",
            "config",
            "experts",
        ),
        *("number", "exit", "restarts", "processes", "connections", "in_flight", "requests", "missing", "dropped"),
        *("variables", "signal", "path", "by", "why", "policy"),
        *("changes", "figures", "step", "wanted"),
    )
)
WITHHELD = "a library's message, withheld since it may quote a request"
MOST_CHARACTERS = 500  # of one text: lines of several processes stay whole on one pipe below 4096 bytes
MOST_PLACES = 12
MOST_FRAMES = 32  # between a library's call and this room
USUAL = {"caller": "anonymous", "endpoint": "chat.completions"}  # not told to people
_UNCLEAR = re.compile(r'[\s="]')


class Lines(logging.Formatter):
    """`process` is told where it is one of several."""

    def __init__(self, process: int | str | None = None) -> None:
        super().__init__()
        self._process = process

    def told(self, record: logging.LogRecord) -> dict[str, Any]:
        """What is written of a record, less its time and level."""
        line: dict[str, Any] = {} if self._process is None else {"process": self._process}
        if record.name == OURS:
            line["event"] = _cut(record.getMessage())
            line |= {name: _cut(value) for name, value in vars(record).items() if name in FIELDS}
        else:
            line |= {"event": _cut(_literal(record)), "library": record.name, "at": [_place(record)]}
        serving = served()
        if serving is not None:
            line.setdefault("request_id", serving.request_id)
            if serving.trace_id is not None:
                line.setdefault("trace_id", serving.trace_id)
        if record.exc_info and record.exc_info[0] is not None:
            line |= {"error": record.exc_info[0].__name__, "at": _places(record.exc_info[2])}
        return line


class JsonLines(Lines):
    def format(self, record: logging.LogRecord) -> str:
        seconds, fraction = divmod(record.created, 1.0)
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        line = {"time": f"{when}.{int(fraction * 1000):03d}Z", "level": record.levelname.lower(), **self.told(record)}
        try:
            text = msgspec.json.encode(line, enc_hook=_kind).decode()
        except UnicodeEncodeError:  # half a character, which UTF-8 cannot carry
            text = json.dumps(line, default=_kind)
        return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


class ConsoleLines(Lines):
    """`colour` where a terminal shows it."""

    COLOURS: Mapping[str, str] = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}

    def __init__(self, process: int | str | None = None, colour: bool = False) -> None:
        super().__init__(process)
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        line = self.told(record)
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = self._painted(f"{record.levelname:<8}", self.COLOURS.get(record.levelname, "0"))
        process = f"[{shown(line.pop('process'))}] " if "process" in line else ""
        event = line.pop("event")
        head = f"{self._painted(when, '2')} {level}{process}"
        if event == "request" and record.name == OURS:
            return head + self._request(line)
        return f"{head}{shown(event)}{self._rest(line)}"

    def _request(self, line: dict[str, Any]) -> str:
        """How it came out, who answered and why, how long it took and what it cost, in columns; then the rest."""
        status, outcome, attempts = line.pop("status", 0), shown(line.pop("outcome", "")), line.pop("attempts", [])
        colour = "32" if status < 400 and outcome == "ok" else "33" if status < 500 else "31"
        if len(attempts) > 1:
            line["tried"] = attempts[:-1]
        who = shown(attempts[-1].partition(":")[0] if attempts else line.get("expert", "–"))
        line.pop("expert", None)
        domain = shown(line.pop("domain", "")) + (f" {line.pop('confidence'):.2f}" if "confidence" in line else "")
        line.pop("stream", None)
        for name, usual in USUAL.items():
            if line.get(name) == usual:
                del line[name]
        told = [
            self._painted(f"{status} {outcome:<13}", colour),
            f"{who:<12} {domain:<12} {shown(line.pop('reason', '')):<10} {line.pop('seconds', 0.0):7.2f} s",
            shown(line.pop("error_code", "")),
            f"first {line.pop('ttft'):.2f} s" if "ttft" in line else "",
            f"{line.pop('input_tokens')} → {line.pop('output_tokens')} tokens" if "output_tokens" in line else "",
            f"${line.pop('cost_usd'):.6f}" if "cost_usd" in line else "",
            f"{line.pop('energy_wh'):.4f} Wh" if "energy_wh" in line else "",
        ]
        return "  ".join(part for part in told if part) + self._rest(line)

    def _rest(self, line: Mapping[str, Any]) -> str:
        """Ids last: they are long, and sought rather than read."""
        names = sorted(line, key=lambda name: name.endswith("_id"))
        told = " ".join(f"{name}={_word(line[name])}" for name in names)
        return self._painted(f"  {told}", "2") if told else ""

    def _painted(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text


def shown(value: object) -> str:
    """A text in which nothing moves a cursor, turns the writing round or begins a line."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _word(value: object) -> str:
    """A value that cannot be taken for another field."""
    text = shown(",".join(map(str, value)) if isinstance(value, list | tuple) else value)
    return f'"{text.replace(chr(34), chr(39))}"' if not text or _UNCLEAR.search(text) else text


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _kind(value: object) -> str:
    return type(value).__name__


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MOST_CHARACTERS else f"{value[:MOST_CHARACTERS]}…"
    return [_cut(item) for item in value[:MOST_PLACES]] if isinstance(value, list | tuple) else value


def _places(trace: TracebackType | None) -> list[str]:
    """Where in the code, outermost first; of a deep one the innermost."""
    frames = [(frame.f_code.co_filename, number) for frame, number in traceback.walk_tb(trace)]
    return [f"{file.rpartition('/')[2]}:{number}" for file, number in frames[-MOST_PLACES:]]


def _place(record: logging.LogRecord) -> str:
    return f"{record.filename}:{record.lineno}"


def _literal(record: logging.LogRecord) -> str:
    """The message of a library, without what it put in, where it stands so in the function that logs."""
    frame = sys._getframe()
    for _ in range(MOST_FRAMES):
        code = frame.f_code
        if code.co_filename == record.pathname and code.co_name == record.funcName:
            return record.msg if _stands_in(record.msg, code.co_consts) else WITHHELD
        if frame.f_back is None:
            break
        frame = frame.f_back
    return WITHHELD


def _stands_in(text: object, constants: Iterable[object]) -> bool:
    return isinstance(text, str) and any(text == constant for constant in constants if isinstance(constant, str))
