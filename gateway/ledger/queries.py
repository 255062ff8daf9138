"""What is asked of the ledger, in SQL: figures over its rows and over what became of older ones, and one request's row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, case, cast, func, literal, select, union_all
from sqlalchemy.sql.selectable import FromClause, NamedFromClause

from gateway.ledger.asked import GROUPS, TIMES, Asked, AskedError
from gateway.ledger.report import COUNTED, FRACTIONS, Figures, Report, reported
from gateway.ledger.row import Row
from gateway.ledger.tables import daily, requests

ROLLED_UP = "(rolled up)"  # the group of requests whose rows are gone, where the roll-up does not tell them apart
POSTGRESQL_TIMES = {"hour": "YYYY-MM-DD HH24:00", "day": "YYYY-MM-DD", "month": "YYYY-MM"}
LENGTHS = {"hour": 10, "day": 10, "month": 7}  # of a rolled-up day's name: its hours are not known

WEEK = timedelta(days=7)  # no zone changes its clocks twice within one

Times = tuple[float | None, float | None]


def row(connection: Connection, request_id: str, caller: str | None) -> Row | None:
    """That of the newest request of the id; of anybody's where `caller` is None."""
    query = select(requests).where(requests.c.id == request_id).order_by(requests.c.at.desc()).limit(1)
    if caller is not None:
        query = query.where(requests.c.caller == caller)
    found = connection.execute(query).mappings().one_or_none()
    return None if found is None else dict(found)


def prompts(connection: Connection, since: datetime, most: int) -> list[Row]:
    """The newest requests since then, oldest first, whose prompt was recorded and whose expert the router chose: their id,
    prompt, requested model and tokens."""
    c = requests.c
    chosen = c.prompt.is_not(None) & (c.prompt != "") & c.requested.startswith("auto") & (c.reason != "pinned")
    columns = (c.id, c.prompt, c.requested, c.input_tokens, c.cached_input_tokens, c.output_tokens)
    newest = (c.at.desc(), c.writer.desc(), c.number.desc())
    found = connection.execute(select(*columns).where(chosen, c.at >= since).order_by(*newest).limit(most))
    return [dict(row) for row in found.mappings()][::-1]


def usage(connection: Connection, asked: Asked, most: int | None = None) -> Report:
    """Raises AskedError where there are more than `most` groups."""
    dialect = connection.dialect.name
    rows = _rows(asked, dialect)
    both = union_all(rows, _rolled(asked, dialect)).subquery()
    groups = _groups(both, asked.by)
    query = select(*groups, *(func.sum(both.c[name]) for name in COUNTED)).group_by(*groups)
    found = connection.execute(query if most is None else query.limit(most + 1)).all()
    if most is not None and len(found) > most:
        raise AskedError("by", f"that is more than {most} rows; ask for less time, or by less")
    times = _times(connection, rows.subquery(), asked.by)
    figures = [_figures(row, len(asked.by), times) for row in found if row[len(asked.by)]]
    whole = _times(connection, rows.subquery(), ()) if asked.by else times
    return reported(asked, figures, *whole.get((), (None, None)))


def _figures(row: Sequence[Any], width: int, times: Mapping[tuple[Any, ...], Times]) -> Figures:
    names, values = tuple(row[:width]), zip(COUNTED, row[width:], strict=True)
    return Figures(
        names, {n: float(v) if n in FRACTIONS else int(v) for n, v in values}, *times.get(names, (None, None))
    )


def _rows(asked: Asked, dialect: str) -> Select[Any]:
    """What each request that is asked for comes to, and the names of its groups as text."""
    c = requests.c
    paid = func.coalesce(c.cost_usd, 0.0) + func.coalesce(c.estimated_usd, 0.0)
    counted = {
        "requests": literal(1),
        "errors": case((c.outcome == "ok", 0), else_=1),
        "priced": case((c.cost_usd.is_(None), 0), else_=1),
        "compared": case((c.baseline_usd.is_(None), 0), else_=1),
        "compared_usd": case((c.baseline_usd.is_(None), 0.0), else_=paid),
    }
    before = [c.at < asked.until] if asked.until else []
    named = [
        _time_of(name, asked, dialect) if name in TIMES else cast(c[GROUPS[name] or ""], Text) for name in asked.by
    ]
    values = [counted[name] if name in counted else func.coalesce(c[name], _nothing(name)) for name in COUNTED]
    return _labelled(asked, named, values).where(c.at >= asked.since, *before, *_whose(requests, asked))


def _rolled(asked: Asked, dialect: str) -> Select[Any]:
    """The same of the days that were rolled up. A day is of the time in which it began, by UTC."""
    c = daily.c
    day = func.to_char(c.day, "YYYY-MM-DD") if dialect == "postgresql" else cast(c.day, Text)
    named: list[ColumnElement[Any]] = []
    for name in asked.by:
        column = GROUPS[name]
        if column is None:
            named.append(func.substr(day, 1, LENGTHS[name]))
        else:
            named.append(func.nullif(c[column], "") if column in c else literal(ROLLED_UP))
    before = [c.day < _first_day(asked.until)] if asked.until else []
    values = [c[name] for name in COUNTED]
    return _labelled(asked, named, values).where(c.day >= _first_day(asked.since), *before, *_whose(daily, asked))


def _labelled(asked: Asked, named: Sequence[ColumnElement[Any]], values: Sequence[ColumnElement[Any]]) -> Select[Any]:
    return select(
        *(group.label(f"by_{name}") for name, group in zip(asked.by, named, strict=True)),
        *(value.label(name) for name, value in zip(COUNTED, values, strict=True)),
    )


def _groups(table: FromClause, by: Sequence[str]) -> list[ColumnElement[Any]]:
    return [table.c[f"by_{name}"] for name in by]


def _whose(table: NamedFromClause, asked: Asked) -> list[ColumnElement[bool]]:
    return [
        table.c[column].in_(names) for column, names in (("expert", asked.experts), ("caller", asked.keys)) if names
    ]


def _nothing(name: str) -> float:
    return 0.0 if name in FRACTIONS else 0


def _first_day(moment: datetime) -> date:
    """The first day of UTC that begins then or later."""
    moment = moment.astimezone(UTC)
    began = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return began.date() if began == moment else began.date() + timedelta(days=1)


def _times(connection: Connection, rows: FromClause, by: Sequence[str]) -> Mapping[tuple[Any, ...], Times]:
    """By the names of the groups, within how many seconds half, and 95 of 100, of their requests ended."""
    groups = _groups(rows, by)
    place = func.row_number().over(partition_by=groups or None, order_by=rows.c.seconds)
    count = func.count().over(partition_by=groups or None)
    ranked = select(*groups, rows.c.seconds, place.label("place"), count.label("count_")).subquery()
    which = _groups(ranked, by)
    ends = [
        func.max(case((ranked.c.place == (ranked.c.count_ * percent + 99) // 100, ranked.c.seconds)))
        for percent in (50, 95)
    ]
    found = connection.execute(select(*which, *ends).group_by(*which))
    return {tuple(row[: len(by)]): (row[-2], row[-1]) for row in found}


def _time_of(name: str, asked: Asked, dialect: str) -> ColumnElement[Any]:
    """The hour, day or month in which a request ended, as people of the zone call it."""
    at = requests.c.at
    if dialect == "postgresql":
        return func.to_char(func.timezone(str(asked.zone), at), POSTGRESQL_TIMES[name])
    # SQLite knows no time zones. Taught to it in Python, they would make every row wait for the interpreter's lock.
    named = [(at >= since, func.strftime(TIMES[name], at, f"{offset} seconds")) for since, offset in _offsets(asked)]
    return case(*named)


def _offsets(asked: Asked) -> list[tuple[datetime, int]]:
    """From when on the zone is how many seconds before UTC, the latest first."""
    soon = datetime.now(UTC) + WEEK
    moment, end = asked.since, min(asked.until or soon, soon)
    known = [(moment, _offset(moment, asked.zone))]
    while moment < end:
        before, moment = moment, min(moment + WEEK, end)
        if (offset := _offset(moment, asked.zone)) != known[-1][1]:
            known.append((_change(before, moment, asked.zone), offset))
    return known[::-1]


def _change(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The minute between the two at which the zone takes another offset."""
    while after - before > timedelta(minutes=1):
        middle = before + (after - before) / 2
        if _offset(middle, zone) == _offset(before, zone):
            before = middle
        else:
            after = middle
    return after.replace(second=0, microsecond=0)


def _offset(moment: datetime, zone: tzinfo) -> int:
    return int((moment.astimezone(zone).utcoffset() or timedelta()).total_seconds())
