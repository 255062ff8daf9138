from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import logs
from gateway.exchange import Exchange, Outcome
from gateway.logs import writer
from gateway.logs.lines import FIELDS, MOST_CHARACTERS, MOST_PLACES, WITHHELD, ConsoleLines, JsonLines
from gateway.logs.writer import Writer, into
from gateway.settings import LogFormat, LogLevel
from gateway.usage import Usage
from tests.fakes.memory import decision, experts_file
from tests.fakes.upstream import PATIENCE

SECRET = "the patient is called Ada"
FILE = experts_file({"coder": {"price": {"input": 1.0, "output": 2.0}, "defaults": {"system": SECRET}}})


class Lines:
    """What the log holds."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        logging.getLogger().handlers[0].flush()
        return self._stream.getvalue()

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.split("\n") if line]


Configured = Callable[..., Lines]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FLUSH_SECONDS", PATIENCE)


@pytest.fixture
def configured() -> Iterator[Configured]:
    """configured(...) sets the log up; afterwards logging is as it was."""
    root, before = logging.getLogger(), logs.log.level
    handlers, level = root.handlers, root.level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook

    def configure(*arguments: Any, **more: Any) -> Lines:
        stream = io.StringIO()
        logs.configure(*arguments, **{**more, "stream": stream})
        return Lines(stream)

    yield configure
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers = handlers
    root.setLevel(level)
    logs.log.setLevel(before)
    logging.captureWarnings(False)
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


@pytest.fixture
def lines(configured: Configured) -> Lines:
    return configured()


def finished(outcome: Outcome = Outcome.OK, status: int = 200) -> Exchange:
    """An exchange that failed over once before it came out as `outcome`."""
    exchange = Exchange("r1", "chat.completions", caller="team-a", started=100.0, stream=True)
    exchange.decision = decision("coder", domains={"code": 0.87654, "general": 0.12346})
    exchange.expert_id, exchange.expert = "coder", FILE.experts["coder"]
    exchange.end_attempt(exchange.attempt("coder", "coder-0"), Outcome.CONNECT_ERROR)
    exchange.end_attempt(exchange.attempt("coder", "coder-1"), outcome)
    exchange.first_token = 100.25
    exchange.usage = Usage(input=400, cached_input=100, output=250)
    exchange.finish(outcome, status)
    exchange.finished = 102.5
    return exchange


def test_a_finished_exchange_is_one_line_of_json(lines: Lines) -> None:
    logs.write(finished())
    [line] = lines.read()
    assert line.pop("time")
    assert line == {
        "level": "info",
        "event": "request",
        "request_id": "r1",
        "caller": "team-a",
        "endpoint": "chat.completions",
        "status": 200,
        "outcome": "ok",
        "seconds": 2.5,
        "stream": True,
        "expert": "coder",
        "domain": "code",
        "confidence": 0.877,
        "reason": "best",
        "attempts": ["coder-0:connect_error", "coder-1:ok"],
        "ttft": 0.25,
        "input_tokens": 500,
        "output_tokens": 250,
        "cost_usd": pytest.approx(0.001),
    }


def test_what_is_not_known_is_left_out(lines: Lines) -> None:
    exchange = Exchange("r2", "chat.completions", error_code="invalid_request")
    exchange.finish(Outcome.CLIENT_ERROR, 400)
    logs.write(exchange)
    [line] = lines.read()
    assert set(line) == {
        "time", "level", "event", "request_id", "caller", "endpoint", "status", "outcome", "seconds", "stream",
        "attempts", "error_code",
    }  # fmt: skip


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_what_an_operator_should_look_into_is_a_warning(lines: Lines, outcome: Outcome) -> None:
    logs.write(finished(outcome, 500))
    calm = {Outcome.OK, Outcome.CLIENT_ERROR, Outcome.CANCELLED}
    assert lines.read()[0]["level"] == ("info" if outcome in calm else "warning")


def test_neither_a_prompt_nor_an_address_is_in_the_line(lines: Lines) -> None:
    logs.write(finished(Outcome.SERVER_ERROR, 502))
    assert SECRET not in lines.text
    assert ".test" not in lines.text


def raise_deep() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        error.add_note(SECRET)
        raise ValueError(f"cannot read {SECRET}") from error


def test_of_an_exception_only_its_type_and_the_places_are_told(lines: Lines) -> None:
    try:
        raise_deep()
    except ValueError:
        logs.log.exception("the gateway failed", extra={"request_id": "r3"}, stack_info=True)
    [line] = lines.read()
    assert (line["level"], line["event"], line["request_id"]) == ("error", "the gateway failed", "r3")
    assert line["error"] == "ValueError"
    assert len(line["at"]) == 2
    assert all(re.fullmatch(r"test_logs\.py:\d+", place) for place in line["at"])
    assert "Ada" not in lines.text


def test_an_exchange_whose_observer_fails_tells_nothing_of_the_exception(lines: Lines) -> None:
    def fails(_: Exchange) -> None:
        raise RuntimeError(SECRET)

    Exchange("r4", "chat.completions", observers=(fails, logs.write)).finish(Outcome.OK, 200)
    assert [line.get("error") for line in lines.read()] == ["RuntimeError", None]
    assert "Ada" not in lines.text


def test_a_message_of_several_lines_stays_one_line(lines: Lines) -> None:
    logs.log.info('two\nlines, a "quote" and %s', "ünïcode\u2028", extra={"why": object})
    assert len(lines.text.strip().split("\n")) == 1
    assert lines.read()[0]["event"] == 'two\nlines, a "quote" and ünïcode\u2028'


@pytest.mark.parametrize(
    ("level", "events"),
    [
        (LogLevel.DEBUG, ["chatter", "look", "detail", "ours", "bad"]),
        (LogLevel.INFO, ["look", "ours", "bad"]),
        (LogLevel.WARNING, ["look", "bad"]),
        (LogLevel.ERROR, ["bad"]),
    ],
)
def test_the_level_is_the_least_that_is_written_and_of_libraries_warnings_are(
    configured: Configured, level: LogLevel, events: list[str]
) -> None:
    lines, library = configured(level), logging.getLogger("some.library")
    library.info("chatter")
    library.warning("look")
    logs.log.debug("detail")
    logs.log.info("ours")
    logs.log.error("bad")
    assert [line["event"] for line in lines.read()] == events


def test_an_error_outside_of_any_exception_has_no_type(lines: Lines) -> None:
    logs.log.error("bad", exc_info=True)
    [line] = lines.read()
    assert set(line) == {"time", "level", "event"}


def test_of_a_librarys_record_only_what_its_source_says_is_written(lines: Lines) -> None:
    library = logging.getLogger("some.library")
    library.warning("literal with %s", SECRET)
    library.warning(f"built of {SECRET}")
    library.warning("half built of " + SECRET + ": %d", 7)
    library.warning(ValueError(SECRET), extra={"why": SECRET, "path": SECRET})
    library.handle(logging.makeLogRecord({"name": "another", "levelno": 40, "levelname": "ERROR", "msg": SECRET}))
    told = lines.read()
    assert [line["event"] for line in told] == ["literal with %s", WITHHELD, WITHHELD, WITHHELD, WITHHELD]
    assert all(re.fullmatch(r"test_logs\.py:\d+", line["at"][0]) for line in told[:4])
    assert {line["library"] for line in told} == {"some.library", "another"}
    assert "Ada" not in lines.text


def test_warnings_and_what_ends_on_standard_error_otherwise_are_lines_that_quote_nothing(
    lines: Lines, capfd: pytest.CaptureFixture[str]
) -> None:
    class Dies:
        def __del__(self) -> None:
            raise ValueError(SECRET)

    def fail() -> None:
        raise KeyError(SECRET)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn(SECRET, stacklevel=1)
    logging.captureWarnings(False)
    Dies()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except KeyError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    told = [(line["level"], line.get("error")) for line in lines.read()]
    assert told == [
        ("warning", None),
        ("critical", "ValueError"),
        ("critical", "KeyError"),
        ("critical", "KeyError"),
    ]
    assert "Ada" not in lines.text + "".join(capfd.readouterr())


def test_only_known_fields_are_written(lines: Lines) -> None:
    logs.log.info("reloaded", extra={"experts": 4, "prompt": SECRET, "headers": {"authorization": SECRET}})
    [line] = lines.read()
    assert set(line) == {"time", "level", "event", "experts"}


def test_every_field_that_the_source_logs_is_known() -> None:
    logged: set[object] = set()
    for path in Path(logs.__file__).parents[1].glob("**/*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if "log." in text else ():
            if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
                logged |= {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    assert len(logged) > 10
    assert logged <= FIELDS


def test_the_lines_of_a_request_have_its_ids_until_it_is_over(lines: Lines) -> None:
    logs.log.info("before")
    serving = logs.serve("req-1")
    logs.log.info("served")
    logs.traced("a" * 32)
    logging.getLogger("some.library").warning("look")
    logs.log.info("another's", extra={"request_id": "req-2"})
    serving.over = True
    logs.log.info("after")
    told = [(line["event"], line.get("request_id"), line.get("trace_id")) for line in lines.read()]
    assert told == [
        ("before", None, None),
        ("served", "req-1", None),
        ("look", "req-1", "a" * 32),
        ("another's", "req-2", "a" * 32),
        ("after", None, None),
    ]


def test_one_of_several_processes_says_which_it_is(configured: Configured) -> None:
    lines = configured(process=3)
    logs.log.info("ours")
    assert lines.read()[0]["process"] == 3
    lines = configured(style=LogFormat.CONSOLE, process="workers")
    logs.log.info("ours")
    assert lines.text.endswith("INFO    [workers] ours\n")


def test_people_read_columns(configured: Configured) -> None:
    lines = configured(style=LogFormat.CONSOLE)
    logs.write(finished())
    logs.log.error("worker died", extra={"worker": "coder-0", "exit": -9, "why": "out of memory"})
    request, died = lines.text.splitlines()
    assert re.sub(" +", " ", request)[9:] == (
        "INFO 200 ok coder-1 code 0.88 best 2.50 s first 0.25 s 500 → 250 tokens $0.001000 "
        "caller=team-a tried=coder-0:connect_error request_id=r1"
    )
    assert died[9:] == 'ERROR   worker died  worker=coder-0 exit=-9 why="out of memory"'
    assert "\x1b" not in lines.text


def record(event: str, **extra: object) -> logging.LogRecord:
    said = {"name": "moe_gateway", "levelno": 20, "levelname": "INFO", "msg": event, "created": time.time()}
    return logging.makeLogRecord({**said, **extra})


HOSTILE = st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Lu", "Zs", "Po"]), max_size=40)


def whole(text: str) -> str:
    """Two halves of a character in JSON are that character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@settings(max_examples=40)
@given(HOSTILE, HOSTILE, st.booleans())
def test_no_text_forges_a_line_or_moves_a_terminal(event: str, name: str, colour: bool) -> None:
    extra, same = {"request_id": name, "attempts": [name, name], "status": 200, "expert": name}, whole(name)
    for kind in ("request", event):
        machines = JsonLines("parent").format(record(kind, **extra))
        assert machines.isprintable()
        told = json.loads(machines)
        assert (told["request_id"], told["event"], told["attempts"]) == (same, whole(kind), [same, same])
        people = re.sub(r"\x1b\[[0-9;]+m", "", ConsoleLines(2, colour).format(record(kind, **extra)))
        assert people.isprintable()


def test_what_looks_like_another_field_is_quoted(configured: Configured) -> None:
    lines = configured(style=LogFormat.CONSOLE)
    logs.log.info("adapter loaded", extra={"adapter": 'x expert=forged caller="admin"'})
    assert lines.text.endswith("adapter=\"x expert=forged caller='admin'\"\n")


def test_long_texts_are_cut_so_that_a_line_is_written_whole() -> None:
    texts = {"why": "w" * 9000, "model": "m" * 9000, "attempts": ["a" * 9000] * 2}
    assert len(JsonLines().format(record("e" * 9000, **texts)).encode()) < 4096


def test_a_text_of_just_so_many_characters_is_whole() -> None:
    told = json.loads(JsonLines().format(record("e" * MOST_CHARACTERS, why="w" * (MOST_CHARACTERS + 1))))
    assert (told["event"], told["why"]) == ("e" * MOST_CHARACTERS, "w" * MOST_CHARACTERS + "…")


def test_the_time_has_all_digits_of_its_milliseconds() -> None:
    assert json.loads(JsonLines().format(record("e", created=86400.0625)))["time"] == "1970-01-02T00:00:00.062Z"


def test_of_a_deep_traceback_the_innermost_places_are_told(configured: Configured) -> None:
    def deeper(levels: int) -> None:
        if not levels:
            "".encode("no such encoding")
        deeper(levels - 1)

    lines = configured()
    try:
        deeper(2 * MOST_PLACES)
    except LookupError as error:
        logs.log.error("bad", exc_info=error)
        trace = traceback.extract_tb(error.__traceback__)
    [line] = lines.read()
    assert line["at"] == [f"test_logs.py:{place.lineno}" for place in trace[-MOST_PLACES:]]
    assert len(set(line["at"])) == 2  # the last of them is another line than those before


def test_a_reader_that_stops_holds_nobody_up_and_what_it_missed_is_counted() -> None:
    reading, goes_on = threading.Event(), threading.Event()
    written: list[str] = []

    def write(line: str) -> None:
        reading.set()
        assert goes_on.wait(PATIENCE)
        written.append(line)

    handler = Writer(JsonLines(), write, most=3)
    handler.handle(record("0"))
    assert reading.wait(PATIENCE)
    for i in range(1, 11):
        handler.handle(record(str(i)))
    goes_on.set()
    handler.flush()
    told = [json.loads(line) for line in written]
    assert [line["event"] for line in told] == ["0", "log lines were dropped", "1", "2", "3"]
    assert told[1]["dropped"] == 7
    handler.close()


def test_a_line_that_cannot_be_made_is_counted_and_not_quoted(capfd: pytest.CaptureFixture[str]) -> None:
    written: list[str] = []
    handler = Writer(JsonLines(), written.append)
    handler.handle(logging.makeLogRecord({"name": "moe_gateway", "msg": "%d", "args": (SECRET,), "levelname": "INFO"}))
    handler.handle(record("next"))
    handler.flush()
    handler.close()
    assert [json.loads(line)["event"] for line in written] == ["next", "log lines were dropped"]
    assert "Ada" not in "".join(capfd.readouterr())


def test_a_pipe_that_nobody_reads_any_more_is_no_failure() -> None:
    reader, end = os.pipe()
    os.close(reader)
    with open(end, "w", encoding="utf-8") as stream:
        into(stream)("line\n")
    reader, end = os.pipe()
    os.set_blocking(end, False)
    with open(end, "w", encoding="utf-8") as stream, open(reader, "rb") as read:
        thread = threading.Thread(target=into(stream), args=("x" * 200_000 + "\ud800\n",))
        thread.start()
        assert read.readline() == b"x" * 200_000 + b"\\ud800\n"
        thread.join()


def test_what_is_logged_last_is_written_before_the_process_ends() -> None:
    program = (
        "import logging, sys; from gateway import logs; logs.configure()\n"
        "for i in range(50): logs.log.info('line')\n"
        f"raise ValueError({SECRET!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in told] == ["line"] * 50 + ["the process failed"]
    assert "Ada" not in done.stderr
