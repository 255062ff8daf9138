from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, Select, delete, func, insert, select

from gateway.ledger import database, upkeep
from gateway.ledger.database import connected, migrate
from gateway.ledger.row import Row
from gateway.ledger.tables import daily, requests
from tests.fakes.ledgers import THEN, row
from tests.fakes.upstream import PATIENCE

Totals = dict[tuple[Any, ...], dict[str, float]]  # by day, expert, caller, domain
SUMS = tuple(column.name for column in daily.c if column.name in requests.c and not column.primary_key)
SOON, LATER = THEN + timedelta(days=4), THEN + timedelta(days=99)
times = st.datetimes(THEN.replace(tzinfo=None), SOON.replace(tzinfo=None)).map(lambda time: time.replace(tzinfo=UTC))
usd = st.none() | st.floats(0, 10)
tokens = st.none() | st.integers(0, 2**40)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "at": times,
            "expert": st.sampled_from([None, "coder", "general"]),
            "caller": st.sampled_from(["anonymous", "team-a"]),
            "domain": st.sampled_from([None, "code"]),
            "outcome": st.sampled_from(["ok", "timeout", "cancelled"]),
            "seconds": st.floats(0, 600),
            **dict.fromkeys(("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"), tokens),
            **dict.fromkeys(("cost_usd", "estimated_usd", "baseline_usd", "dearest_usd", "energy_wh"), usd),
        }
    ),
    max_size=30,
)


def truth(made: Sequence[Row]) -> Totals:
    """The totals of each day, expert, caller and domain, as anybody would add them up."""
    totals: Totals = {}
    for one in made:
        key = (one["at"].date(), one["expert"] or "", one["caller"], one["domain"] or "")
        total = totals.setdefault(key, dict.fromkeys((c.name for c in daily.c if not c.primary_key), 0))
        spent = (one["cost_usd"] or 0.0) + (one["estimated_usd"] or 0.0)
        total["requests"] += 1
        total["errors"] += one["outcome"] != "ok"
        total["priced"] += one["cost_usd"] is not None
        if one["baseline_usd"] is not None:
            total["compared"] += 1
            total["compared_usd"] += spent
        if one["dearest_usd"] is not None:
            total["dearest_compared_usd"] += spent
        for name in SUMS:
            total[name] += one[name] or 0
    return totals


def rolled(engine: Engine) -> Totals:
    with engine.connect() as connection:
        found = connection.execute(select(daily)).mappings().all()
    return {
        (f["day"], f["expert"], f["caller"], f["domain"]): {c.name: f[c.name] for c in daily.c if not c.primary_key}
        for f in found
    }


def differing(one: Totals, other: Totals) -> list[tuple[Any, ...]]:
    """Where two totals are not the same."""
    return [(key, one.get(key), other.get(key)) for key in one.keys() ^ other.keys()] + [
        (key, name, one[key][name], value)
        for key in one.keys() & other.keys()
        for name, value in other[key].items()
        if not math.isclose(one[key][name], value, rel_tol=1e-9, abs_tol=1e-9)
    ]


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "STEP", 7)


@pytest.fixture
def engine(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    # SQLite lets in whoever comes first, not who waits longest.
    monkeypatch.setattr(database, "BUSY_SECONDS", 10 * PATIENCE)
    engine = connected(url)
    migrate(engine)
    yield engine
    engine.dispose()


def write(engine: Engine, made: Sequence[Row]) -> None:
    if made:
        with engine.begin() as connection:
            connection.execute(insert(requests), made)


def all_rolled_up(engine: Engine, before: datetime) -> None:
    while upkeep.roll_up(engine, before):
        pass


def test_days_and_rows_together_are_always_the_truth(engine: Engine) -> None:
    @given(drawn=rows, cut=times)
    @settings(max_examples=20, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking takes minutes
    def check(drawn: list[dict[str, Any]], cut: datetime) -> None:
        made = [row(number, **one) for number, one in enumerate(drawn)]
        with engine.begin() as connection:
            connection.execute(delete(requests))
            connection.execute(delete(daily))
        write(engine, made)
        all_rolled_up(engine, cut)
        assert differing(rolled(engine), truth([one for one in made if one["at"] < cut])) == []
        with engine.connect() as connection:
            left = connection.scalars(select(requests.c.number).order_by(requests.c.number)).all()
        assert list(left) == [one["number"] for one in made if one["at"] >= cut]
        all_rolled_up(engine, LATER)
        assert differing(rolled(engine), truth(made)) == []

    check()


def test_one_step_takes_the_oldest_and_says_whether_there_are_more(engine: Engine) -> None:
    write(engine, [row(number, at=THEN + timedelta(hours=number)) for number in range(10)])
    assert upkeep.roll_up(engine, THEN + timedelta(hours=9))
    assert [number for (number,) in found(engine, select(requests.c.number).order_by(requests.c.number))] == [7, 8, 9]
    assert not upkeep.roll_up(engine, THEN + timedelta(hours=9))
    assert [number for (number,) in found(engine, select(requests.c.number))] == [9]


def test_rows_of_one_moment_go_together(engine: Engine) -> None:
    write(engine, [row(number) for number in range(20)])
    all_rolled_up(engine, LATER)
    assert found(engine, select(daily.c.requests)) == [(20,)]


def test_who_rolls_up_at_once_counts_nothing_twice_and_loses_nothing(url: str, engine: Engine) -> None:
    """Three do, while rows are written that are just as old."""
    made = [row(number, at=THEN + timedelta(minutes=number)) for number in range(200)]
    failed: list[Exception] = []
    written = threading.Event()

    def roll_up() -> None:
        mine = connected(url)
        try:
            while not written.wait(0.005):
                all_rolled_up(mine, LATER)
            all_rolled_up(mine, LATER)
        except Exception as error:  # noqa: BLE001 - told by the test
            failed.append(error)
        finally:
            mine.dispose()

    threads = [threading.Thread(target=roll_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for start in range(0, len(made), 20):
            write(engine, made[start : start + 20])
    finally:
        written.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert found(engine, select(func.count()).select_from(requests)) == [(0,)]
    assert differing(rolled(engine), truth(made)) == []


def found(engine: Engine, query: Select[Any]) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(one) for one in connection.execute(query)]
