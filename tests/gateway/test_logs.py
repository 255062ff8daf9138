from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import logs
from gateway.exchange import Exchange, Outcome
from gateway.usage import Usage
from tests.fakes.memory import decision, experts_file

SECRET = "the patient is called Ada"
FILE = experts_file({"coder": {"price": {"input": 1.0, "output": 2.0}, "defaults": {"system": SECRET}}})


class Lines:
    """What the log holds."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.split("\n") if line]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The configured log; afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, levels = root.handlers, (root.level, logs.log.level)
    stream = io.StringIO()
    logs.configure(stream)
    yield Lines(stream)
    root.handlers = handlers
    root.setLevel(levels[0])
    logs.log.setLevel(levels[1])


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
        logs.log.exception("the gateway failed", extra={"request_id": "r3"})
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
    logs.log.info('two\nlines, a "quote" and %s', "ünïcode\u2028", extra={"odd": {"a": object}})
    assert len(lines.text.strip().split("\n")) == 1
    assert lines.read()[0]["event"] == 'two\nlines, a "quote" and ünïcode\u2028'


def test_of_libraries_only_warnings_are_written(lines: Lines) -> None:
    library = logging.getLogger("some.library")
    library.info("chatter")
    library.warning("look")
    logs.log.info("ours")
    logs.log.debug("detail")
    assert [line["event"] for line in lines.read()] == ["look", "ours"]


def test_an_error_outside_of_any_exception_has_no_type(lines: Lines) -> None:
    logs.log.error("bad", exc_info=True)
    [line] = lines.read()
    assert set(line) == {"time", "level", "event"}
