from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import BusyError
from gateway.ledger import urls
from gateway.ledger.asked import EVER, Asked
from gateway.ledger.errors import LedgerError
from gateway.ledger.lookups import RECEIPTS, WAITING, Lookups, _Desk
from tests.fakes.upstream import PATIENCE


async def test_what_is_asked_is_looked_up_in_a_thread(tmp_path: Path) -> None:
    lookups = Lookups(urls.in_file(tmp_path / "ledger.db"))
    assert await lookups.row("r", "a") is None
    with pytest.raises(LedgerError, match="no ledger yet"):
        await lookups.usage(Asked((), EVER), 5)
    lookups.close()


def held(let_go: threading.Event) -> Callable[[], str]:
    def work() -> str:
        assert let_go.wait(PATIENCE)
        return threading.current_thread().name

    return work


async def test_few_are_looked_up_at_once_and_one_too_many_is_told_to_come_back() -> None:
    desk, let_go = _Desk(RECEIPTS, "receipts"), threading.Event()
    asked = [asyncio.create_task(desk.ask(held(let_go))) for _ in range(WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError) as caught:
        await desk.ask(lambda: "")
    assert caught.value.headers["retry-after"] == "1"
    let_go.set()
    assert len(set(await asyncio.gather(*asked))) <= RECEIPTS
    assert await desk.ask(lambda: "again") == "again"
    desk.close()


async def test_a_thread_that_nobody_waits_for_any_more_counts_until_it_is_free() -> None:
    desk, let_go = _Desk(1, "receipts"), threading.Event()
    asked = [asyncio.create_task(desk.ask(held(let_go))) for _ in range(WAITING)]
    await asyncio.sleep(0)
    asked[0].cancel()  # it is being worked on
    asked[1].cancel()  # it still waits
    await asyncio.wait(asked[:2])
    assert desk._asked >= WAITING - 2
    let_go.set()
    await asyncio.gather(*asked[2:])
    assert await desk.ask(lambda: "again") == "again"
    desk.close()
