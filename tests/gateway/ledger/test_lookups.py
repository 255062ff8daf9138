from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import BusyError
from gateway.ledger import lookups as lookups_module
from gateway.ledger import urls
from gateway.ledger.asked import EVER, Asked
from gateway.ledger.errors import LedgerError
from gateway.ledger.lookups import RECEIPTS, WAITING, Desk, Lookups
from gateway.ledger.reader import Reader
from tests.fakes.upstream import PATIENCE


def url(folder: Path) -> str:
    return urls.in_file(folder / "ledger.db")


async def test_what_is_asked_is_looked_up_in_a_thread(tmp_path: Path) -> None:
    lookups = Lookups(url(tmp_path))
    assert await lookups.row("r", "a") is None
    with pytest.raises(LedgerError, match="no ledger yet"):
        await lookups.usage(Asked((), EVER), 5)
    lookups.close()


def held(let_go: threading.Event) -> Callable[[Reader], str]:
    def work(reader: Reader) -> str:
        assert let_go.wait(PATIENCE)
        return threading.current_thread().name

    return work


async def test_few_are_looked_up_at_once_and_one_too_many_is_told_to_come_back(tmp_path: Path) -> None:
    desk, let_go = Desk(url(tmp_path), RECEIPTS, 5.0, "receipts"), threading.Event()
    asked = [asyncio.create_task(desk.ask(held(let_go))) for _ in range(WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError) as caught:
        await desk.ask(lambda reader: "")
    assert caught.value.headers["retry-after"] == "1"
    let_go.set()
    assert len(set(await asyncio.gather(*asked))) <= RECEIPTS
    assert await desk.ask(lambda reader: "again") == "again"
    desk.close()


async def test_a_thread_that_nobody_waits_for_any_more_has_its_place_until_it_is_free(tmp_path: Path) -> None:
    desk, let_go = Desk(url(tmp_path), 1, 5.0, "receipts"), threading.Event()
    asked = [asyncio.create_task(desk.ask(held(let_go))) for _ in range(WAITING)]
    await asyncio.sleep(0)
    for left in asked[:2]:  # the first is being worked on, the second waits
        left.cancel()
    await asyncio.wait(asked[:2])
    asked.append(asyncio.create_task(desk.ask(held(let_go))))  # in the place of the second
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await desk.ask(lambda reader: "")
    let_go.set()
    await asyncio.gather(*asked[2:])
    assert await desk.ask(lambda reader: "again") == "again"
    desk.close()


async def test_a_database_that_never_answers_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups_module, "LATE_SECONDS", 0.05)
    desk, let_go = Desk(url(tmp_path), 1, 0.0, "receipts"), threading.Event()
    with pytest.raises(LedgerError, match="does not answer"):
        await desk.ask(held(let_go))
    let_go.set()
    desk.close()


def test_a_process_ends_though_a_database_never_answers(tmp_path: Path) -> None:
    program = f"""
import asyncio, threading
from gateway.ledger.lookups import Desk
desk, begun = Desk({url(tmp_path)!r}, 1, 60.0, "receipts"), threading.Event()
def never(reader):
    begun.set()
    threading.Event().wait()
async def main():
    asking = asyncio.create_task(desk.ask(never))
    await asyncio.to_thread(begun.wait)
    asking.cancel()
    desk.close()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=2 * PATIENCE)
