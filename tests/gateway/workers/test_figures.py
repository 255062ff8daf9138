"""What a worker does, as its metrics say it."""

from __future__ import annotations

from gateway.workers.figures import WINDOW_SECONDS, Figures


def said(running: float = 0, waiting: float = 0, tokens: float | str = 0, ended: float = 0) -> bytes:
    return (
        f'vllm:num_requests_running{{engine="0",model_name="m"}} {running}\n'
        f'vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}\n'
        f'vllm:generation_tokens_total{{engine="0",model_name="m"}} {tokens}\n'
        f'vllm:generation_tokens_created{{engine="0",model_name="m"}} 1.7e+09\n'
        f'vllm:request_success_total{{engine="0",finished_reason="stop",model_name="m"}} {ended}\n'
        f'vllm:request_success_total{{engine="0",finished_reason="length",model_name="m"}} 1.0\n'
    ).encode()


def test_what_runs_and_waits_keeps_it_from_being_idle() -> None:
    figures = Figures(100.0)
    assert not figures.busy
    assert figures.idle_since == 100.0
    assert figures.read(said(running=2, waiting=3), 101.0)
    assert (figures.running, figures.waiting, figures.busy) == (2, 3, True)
    figures.read(said(waiting=1), 102.0)
    assert figures.busy
    figures.read(said(), 103.0)
    assert not figures.busy
    assert figures.idle_since == 102.0  # when it was last seen at work


def test_a_request_that_came_and_went_between_two_looks_counts_as_work() -> None:
    figures = Figures(100.0)
    for now, ended in ((101.0, 5), (102.0, 5), (103.0, 6), (104.0, 6)):
        figures.read(said(ended=ended), now)
    assert figures.idle_since == 103.0


def test_tokens_a_second_are_those_of_the_last_seconds() -> None:
    figures = Figures(0.0)
    assert figures.tokens_per_second == 0.0
    figures.read(said(tokens=1000), 1.0)
    assert figures.tokens_per_second == 0.0
    for second in range(2, 12):
        figures.read(said(tokens=1000 + 20 * (second - 1)), float(second))
    assert figures.tokens_per_second == 20.0
    for second in range(12, 12 + int(WINDOW_SECONDS) + 1):
        figures.read(said(tokens=1200), float(second))
    assert figures.tokens_per_second == 0.0
    figures.read(said(tokens=7), 30.0)  # another process counts from nothing
    assert figures.tokens_per_second == 0.0


def test_what_is_no_vllm_tells_nothing() -> None:
    figures = Figures(0.0)
    figures.read(said(running=4), 1.0)
    for text in (b"", b"<html>", b"vllm:num_requests_running NaN", b"process_start_time_seconds 5"):
        assert not figures.read(text, 2.0)
    assert figures.running == 4
    assert figures.read(said(tokens="NaN"), 3.0)
    assert figures.read(said(tokens="what"), 4.0)
    assert figures.tokens_per_second == 0.0
