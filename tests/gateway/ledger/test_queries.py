"""The figures are those of the rows that were written, however they are grouped, rolled up or not, in both databases."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete

from gateway.ledger import queries, urls
from gateway.ledger.asked import EVER, GROUPS, TIMES, Asked, AskedError
from gateway.ledger.database import connected, migrate
from gateway.ledger.queries import ROLLED_UP
from gateway.ledger.report import COUNTED, FRACTIONS, Report
from gateway.ledger.row import Row
from gateway.ledger.tables import daily, requests
from gateway.ledger.upkeep import roll_up
from tests.fakes.ledgers import THEN, row
from tests.fakes.postgres import Postgres

BERLIN = ZoneInfo("Europe/Berlin")
SUMMER_ENDS = datetime(2026, 10, 25, 1, tzinfo=UTC)
TOKENS = st.none() | st.integers(0, 2**40)
USD = st.none() | st.integers(0, 10**9).map(lambda micro: micro / 1e6)
NAMES = st.sampled_from(["team-a", "=1+1", 'O\'Hara "x"; DROP TABLE requests', "ключ", "mobile"])
MOMENTS = st.integers(-40 * 24 * 60, 0).map(
    lambda minutes: SUMMER_ENDS + timedelta(days=12, minutes=minutes, seconds=7)
)
CHANGES = st.fixed_dictionaries(
    {
        "at": MOMENTS,
        "caller": NAMES,
        "expert": st.sampled_from([None, "coder", "general"]),
        "domain": st.sampled_from([None, "code", "math"]),
        "status": st.sampled_from([200, 400, 502]),
        "outcome": st.sampled_from(["ok", "client_error", "server_error"]),
        "reason": st.sampled_from([None, "best", "fallback"]),
        "seconds": st.integers(0, 600_000).map(lambda ms: ms / 1000),
        "input_tokens": TOKENS,
        "cached_input_tokens": TOKENS,
        "output_tokens": TOKENS,
        "reasoning_tokens": TOKENS,
        "cost_usd": USD,
        "estimated_usd": USD,
        "baseline_usd": USD,
        "energy_wh": USD,
    }
)
LEDGERS = st.lists(CHANGES, max_size=25).map(lambda all_: [row(number, **one) for number, one in enumerate(all_)])
GROUPINGS = st.lists(st.sampled_from(list(GROUPS)), unique=True, max_size=3).map(tuple)
KNOWN = {"expert", "domain", "key"}  # of what is rolled up
ZONES = st.sampled_from([UTC, BERLIN, ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/New_York")])


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One for all, and empty for each: to make the tables takes longer than to ask."""
    if request.param == "sqlite":
        url = urls.in_file(tmp_path_factory.mktemp("ledger") / "ledger.db")
    else:
        server: Postgres = request.getfixturevalue("server")
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE queries")
        url = server.url.replace("/postgres?", "/queries?")
    made = connected(url)
    migrate(made)
    yield made
    made.dispose()


def filled(engine: Engine, rows: Sequence[Row], before: datetime | None = None) -> None:
    """With these rows alone, those from before then rolled up."""
    with engine.begin() as connection:
        connection.execute(delete(requests))
        connection.execute(delete(daily))
        if rows:
            connection.execute(requests.insert(), list(rows))
    while before and roll_up(engine, before):
        pass


def asked_of(engine: Engine, asked: Asked, most: int | None = None) -> Report:
    with engine.connect() as connection:
        return queries.usage(connection, asked, most)


def counted(rows: Sequence[Row]) -> dict[str, float]:
    """What the rows add up to, reckoned without a database."""
    compared = [r for r in rows if r["baseline_usd"] is not None]
    sums: dict[str, float] = {
        "requests": len(rows),
        "errors": sum(r["outcome"] != "ok" for r in rows),
        "priced": sum(r["cost_usd"] is not None for r in rows),
        "compared": len(compared),
        "compared_usd": math.fsum((r["cost_usd"] or 0) + (r["estimated_usd"] or 0) for r in compared),
    }
    return sums | {name: math.fsum(r[name] or 0 for r in rows) for name in COUNTED if name not in sums}


def named(row: Row, by: Sequence[str], zone: Any) -> tuple[str | None, ...]:
    values = [row["at"].astimezone(zone).strftime(TIMES[g]) if g in TIMES else row[GROUPS[g] or ""] for g in by]
    return tuple(None if value is None else str(value) for value in values)


def same(found: Any, expected: dict[str, float]) -> bool:
    return all(
        math.isclose(found[name], expected[name], rel_tol=1e-12, abs_tol=1e-9)
        if name in FRACTIONS
        else found[name] == expected[name]
        for name in COUNTED
    )


def at_rank(rows: Sequence[Row], percent: int) -> float:
    """The nearest-rank percentile."""
    return float(sorted(r["seconds"] for r in rows)[math.ceil(len(rows) * percent / 100) - 1])


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(rows=LEDGERS, by=GROUPINGS, zone=ZONES)
def test_every_group_has_the_sums_and_the_times_of_its_rows_and_all_of_them_those_of_all(
    engine: Engine, rows: list[Row], by: tuple[str, ...], zone: Any
) -> None:
    filled(engine, rows)
    report = asked_of(engine, Asked(by, EVER, None, zone))
    groups = defaultdict(list)
    for one in rows:
        groups[named(one, by, zone)].append(one)
    assert {line.names for line in report.rows} == set(groups)
    for line in report.rows:
        those = groups[line.names]
        assert same(line.sums, counted(those))
        assert (line.p50, line.p95) == (at_rank(those, 50), at_rank(those, 95))
    assert same(report.total.sums, counted(rows))
    if rows:
        assert (report.total.p50, report.total.p95) == (at_rank(rows, 50), at_rank(rows, 95))


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(
    rows=LEDGERS,
    by=GROUPINGS | st.just(("expert", "domain")),
    before=MOMENTS,
    cut=MOMENTS,
    keys=st.lists(NAMES, max_size=2),
)
def test_what_is_rolled_up_counts_on_and_times_that_follow_each_other_miss_nothing(
    engine: Engine, rows: list[Row], by: tuple[str, ...], before: datetime, cut: datetime, keys: list[str]
) -> None:
    filled(engine, rows, before)
    named_keys = tuple(dict.fromkeys(keys))
    whole = asked_of(engine, Asked(by, EVER, keys=named_keys))
    expected = counted([one for one in rows if not keys or one["caller"] in keys])
    assert same(whole.total.sums, expected)
    if set(by) <= KNOWN:
        groups = defaultdict(list)
        for one in rows:
            if not keys or one["caller"] in keys:
                groups[named(one, by, UTC)].append(one)
        assert {line.names: same(line.sums, counted(groups[line.names])) for line in whole.rows} == dict.fromkeys(
            groups, True
        )
    kept = {g for line in whole.rows for g, name in zip(by, line.names, strict=True) if name == ROLLED_UP}
    assert not kept & {*KNOWN, *TIMES}
    parts = [Asked(by, EVER, cut, keys=named_keys), Asked(by, cut, None, keys=named_keys)]
    halves = [asked_of(engine, part).total.sums for part in parts]
    assert same({name: halves[0][name] + halves[1][name] for name in COUNTED}, expected)


def test_days_that_were_rolled_up_are_known_by_name_and_the_rest_of_them_is_not(engine: Engine) -> None:
    rows = [row(1, at=THEN), row(2, at=THEN + timedelta(days=1)), row(3, at=THEN + timedelta(days=1, hours=2))]
    filled(engine, rows, THEN + timedelta(days=1, hours=1))
    lines = asked_of(engine, Asked(("hour", "model", "expert"), EVER)).rows
    assert [(line.names, line.sums["requests"], line.p50) for line in lines] == [
        (("2026-03-04", ROLLED_UP, "coder"), 1, None),
        (("2026-03-05", ROLLED_UP, "coder"), 1, None),
        (("2026-03-05 07:00", "coder-7b", "coder"), 1, 1.5),
    ]
    # A day that is rolled up belongs to the time in which it begins.
    for since, count in ((date(2026, 3, 4), 3), (date(2026, 3, 5), 2)):
        begins = datetime(since.year, since.month, since.day, tzinfo=UTC)
        assert asked_of(engine, Asked((), begins)).total.sums["requests"] == count
        assert asked_of(engine, Asked((), begins + timedelta(seconds=1))).total.sums["requests"] == count - 1


def test_what_ended_on_a_border_is_of_the_time_that_begins_there(engine: Engine) -> None:
    filled(engine, [row(number, at=THEN + timedelta(hours=number)) for number in range(3)])
    for asked, count in (
        (Asked((), EVER, THEN), 0),
        (Asked((), THEN, THEN + timedelta(hours=2)), 2),
        (Asked((), THEN), 3),
    ):
        assert asked_of(engine, asked).total.sums["requests"] == count


def test_the_clocks_of_a_zone_are_followed_when_they_change(engine: Engine) -> None:
    moments = [SUMMER_ENDS + timedelta(minutes=minutes) for minutes in (-121, -61, -1, 0, 59, 60)]
    filled(engine, [row(number, at=at) for number, at in enumerate(moments)])
    for zone in (BERLIN, UTC):
        lines = asked_of(engine, Asked(("hour",), moments[0], moments[-1] + timedelta(minutes=1), zone)).rows
        truth: dict[str, int] = defaultdict(int)
        for at in moments:
            truth[at.astimezone(zone).strftime(TIMES["hour"])] += 1
        assert {line.names[0]: line.sums["requests"] for line in lines} == truth
    assert max(truth.values()) == 2 or len(truth) == 5


def test_more_groups_than_are_wanted_are_refused_and_so_many_are_not(engine: Engine) -> None:
    filled(engine, [row(number, caller=f"key-{number}") for number in range(4)])
    asked = Asked(("key",), EVER)
    assert len(asked_of(engine, asked, 4).rows) == 4
    with pytest.raises(AskedError, match="more than 3 rows"):
        asked_of(engine, asked, 3)


def test_what_costs_most_comes_first_unless_a_time_is_asked_for(engine: Engine) -> None:
    costs = {"cheap": 0.1, "dear": 0.3, "hourly": None}
    filled(
        engine,
        [
            row(i, caller=name, cost_usd=cost, estimated_usd=None if cost else 0.2, at=THEN - timedelta(days=i))
            for i, (name, cost) in enumerate(costs.items())
        ],
    )
    assert [line.names for line in asked_of(engine, Asked(("key",), EVER)).rows] == [("dear",), ("hourly",), ("cheap",)]
    days = [line.names[0] for line in asked_of(engine, Asked(("day",), EVER)).rows]
    assert days == ["2026-03-02", "2026-03-03", "2026-03-04"]


def test_a_row_is_the_callers_newest_of_that_id_and_nobody_elses(engine: Engine) -> None:
    filled(
        engine,
        [
            row(1, id="twice", caller="a", status=200),
            row(2, id="twice", caller="a", status=502, at=THEN + timedelta(seconds=1)),
            row(3, id="twice", caller="b", status=400, at=THEN + timedelta(seconds=2)),
            row(4, id="other", caller="b"),
        ],
    )
    with engine.connect() as connection:
        found = [queries.row(connection, "twice", caller) for caller in ("a", "b", None, "c")]
        assert queries.row(connection, "other", "a") is None
    assert [one["status"] if one else None for one in found] == [502, 400, 400, None]
    assert found[0] is not None
    assert found[0]["at"] == THEN + timedelta(seconds=1)
