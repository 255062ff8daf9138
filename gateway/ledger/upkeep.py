"""Rows that are too old to keep become totals of their day, some at a time and each exactly once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Date, Engine, FromClause, case, delete, func, select
from sqlalchemy.dialects.sqlite import Insert

from gateway.ledger.database import alone, insert
from gateway.ledger.tables import daily, requests

STEP = 2_000  # rows; others write meanwhile, and wait for so many at most
KEYS = ("day", "expert", "caller", "domain")


def roll_up(engine: Engine, before: datetime) -> bool:
    """Take the oldest rows from before then out of `requests` and add them to `daily`, in one transaction. Whether as many were
    found as one step takes, so that there may be more."""
    with engine.begin() as connection:
        alone(connection)
        old = requests.c.at < before
        oldest = select(requests.c.at).where(old).order_by(requests.c.at).limit(STEP).subquery()
        found, last = connection.execute(select(func.count(), func.max(oldest.c.at))).one()
        if not found:
            return False
        these = old & (requests.c.at <= last)
        if engine.dialect.name == "postgresql":
            # In one statement: between two of them another could write a row that is as old, and it would be in neither table.
            gone = delete(requests).where(these).returning(requests).cte("gone")
            connection.execute(_added(insert(engine, daily), gone))
        else:
            connection.execute(_added(insert(engine, daily), select(requests).where(these).subquery()))
            connection.execute(delete(requests).where(these))
        return bool(found >= STEP)


def _added(into: Insert, gone: FromClause) -> Insert:
    """Their totals, in addition to what is there of the same day."""
    of = gone.c
    cost = func.coalesce(of.cost_usd, 0.0) + func.coalesce(of.estimated_usd, 0.0)
    totals = {
        "requests": func.count(),
        "errors": func.sum(case((of.outcome != "ok", 1), else_=0)),
        "priced": func.count(of.cost_usd),
        "compared": func.count(of.baseline_usd),
        "compared_usd": func.sum(case((of.baseline_usd.is_not(None), cost), else_=0.0)),
        "dearest_compared_usd": func.sum(case((of.dearest_usd.is_not(None), cost), else_=0.0)),
    }
    keys = {
        "day": func.date(of.at, type_=Date),
        "expert": func.coalesce(of.expert, ""),
        "caller": of.caller,
        "domain": func.coalesce(of.domain, ""),
    }
    values = {
        column.name: totals[column.name] if column.name in totals else func.coalesce(func.sum(of[column.name]), 0)
        for column in daily.c
        if column.name not in KEYS
    }
    chosen = select(*keys.values(), *values.values()).where(of.caller.is_not(None)).group_by(*keys.values())
    added = into.from_select([*keys, *values], chosen)
    return added.on_conflict_do_update(
        index_elements=KEYS, set_={name: daily.c[name] + added.excluded[name] for name in values}
    )
