from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry, Counter

from gateway import observing
from gateway.exchange import Exchange, Outcome
from gateway.observing import OBSERVERS, Observing, check_observers
from gateway.receipt import Receipt
from router.decision import Query
from router.errors import ExtensionError
from tests.fakes.memory import decision
from tests.fakes.packages import Install, installer
from tests.fakes.upstream import PATIENCE

PROMPT = "the prompt that is nobody's business"


@dataclass
class Noting:
    """An observer that notes what it is told, and by which thread; `raising` is what it raises instead."""

    raising: BaseException | None = None
    held: threading.Event = field(default_factory=threading.Event)
    told: list[Receipt] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    closed: int = 0

    def __post_init__(self) -> None:
        self.held.set()

    def observe(self, receipt: Receipt) -> None:
        self.threads.add(threading.current_thread().name)
        self.held.wait(PATIENCE)
        if self.raising is not None:
            raise self.raising
        self.told.append(receipt)

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.closed += 1


@dataclass
class At:
    """An observer at work, and what is counted of it."""

    one: Observing
    registry: CollectorRegistry

    def tell(self, *numbers: int) -> None:
        for number in numbers:
            exchange = Exchange(f"req-{number}", "chat.completions", caller="team-a")
            exchange.query, exchange.decision = Query(PROMPT), decision("coder")
            exchange.finish(Outcome.OK, 200)
            self.one.observe(exchange)

    def counted(self, outcome: str) -> float:
        labels = {"observer": "acme", "outcome": outcome}
        return self.registry.get_sample_value("moe_observer_receipts_total", labels) or 0.0


@contextmanager
def at_work(make: Callable[[], object], queued: int = 100) -> Iterator[At]:
    registry = CollectorRegistry()
    told = Counter("moe_observer_receipts", "Told.", ("observer", "outcome"), registry=registry)
    with OBSERVERS.lending("acme", make):  # type: ignore[arg-type]
        at = At(Observing("acme", told, queued), registry)
        at.one.start()
        yield at
        at.one.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_is_told_of_every_request_in_order_in_a_thread_of_its_own_and_closed() -> None:
    noting = Noting()
    with at_work(lambda: noting) as at:
        at.tell(*range(50))
    assert [receipt.id for receipt in noting.told] == [f"req-{number}" for number in range(50)]
    assert (noting.threads, noting.closed) == ({"observer acme"}, 1)
    assert [at.counted(outcome) for outcome in ("ok", "failed", "dropped")] == [50, 0, 0]


def test_it_learns_what_a_receipt_says_and_no_prompt() -> None:
    noting = Noting()
    with at_work(lambda: noting) as at:
        at.tell(1)
    (receipt,) = noting.told
    assert (receipt.caller, receipt.status, receipt.outcome) == ("team-a", 200, "ok")
    assert receipt.decision is not None
    assert receipt.decision.probabilities == {"general": 0.9, "code": 0.1}
    assert PROMPT not in repr(receipt)


@pytest.mark.parametrize("raising", [ValueError(PROMPT), SystemExit(3)])
def test_one_that_fails_is_told_of_the_next_and_the_failure_is_said_once(
    caplog: pytest.LogCaptureFixture, raising: BaseException
) -> None:
    noting = Noting(raising)
    with caplog.at_level(logging.INFO, "moe_gateway"), at_work(lambda: noting) as at:
        at.tell(1, 2, 3)
        until(lambda: at.counted("failed") == 3)
        noting.raising = None
        at.tell(4)
        until(lambda: at.counted("ok") == 1)
    assert [(r.getMessage(), r.__dict__["by"]) for r in caplog.records] == [
        ("an observer failed", "acme"),
        ("an observer works again", "acme"),
    ]
    assert [receipt.id for receipt in noting.told] == ["req-4"]


def test_one_that_hangs_holds_up_nobody_and_keeps_no_more_than_its_queue(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "END_SECONDS", 0.05)
    noting = Noting()
    noting.held.clear()
    with at_work(lambda: noting, queued=5) as at:
        at.tell(0)
        until(lambda: bool(noting.threads))  # the first is in its hands, and no more in the queue
        at.tell(*range(1, 26))
        assert at.counted("dropped") == 20
    assert at.counted("dropped") == 25  # those of its queue, too, as the gateway ended
    assert [r.getMessage() for r in caplog.records] == [
        "an observer is behind: receipts are dropped",
        "requests were not told to an observer",
    ]
    noting.held.set()


def test_one_that_cannot_be_made_is_told_of_nothing_which_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> object:
        raise OSError("no such folder")

    with at_work(broken) as at:
        at.tell(1, 2)
    assert at.counted("dropped") == 2
    assert [r.getMessage() for r in caplog.records] == ["an observer cannot be used, it is told of nothing"]


def test_one_that_cannot_be_closed_says_so(caplog: pytest.LogCaptureFixture) -> None:
    noting = Noting()
    noting.close = None  # type: ignore[assignment,method-assign]
    with at_work(lambda: noting):
        pass
    assert [r.getMessage() for r in caplog.records] == ["an observer could not be closed"]


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Install]:
    yield from installer(tmp_path_factory.mktemp("site"))


def test_a_name_that_nobody_adds_is_refused_with_the_nearest(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OBSERVERS, "_found", None)
    with pytest.raises(ExtensionError, match="no observer 'acme-log' is installed; install the package"):
        check_observers(["acme-log"])
    install(
        "acme",
        "moe_gateway.observers",
        {"acme-logs": "acme_a:Log", "acme-sad": "acme_b:Log"},
        {"acme_a.py": "Log = list"},
    )
    monkeypatch.setattr(OBSERVERS, "_found", None)
    check_observers(["acme-logs"])
    with pytest.raises(ExtensionError, match="no observer 'acme-log' is installed; did you mean 'acme-logs'"):
        check_observers(["acme-logs", "acme-log"])
    with pytest.raises(ExtensionError, match=r"acme-sad of the package acme .* cannot be loaded: ModuleNotFoundError"):
        check_observers(["acme-sad"])
