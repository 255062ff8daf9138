"""The tables of the ledger as the code of today reads and writes them. How a database came to have them: migrations/.

Where a row has no value that is NULL, never 0: an answer of unknown cost is not one that cost nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, Float, Index, Integer, MetaData, Table, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from gateway.weighed import Reasons, Weighed


class Utc(TypeDecorator[datetime]):
    """A time with its zone, which is UTC on both sides of every database; SQLite keeps none, PostgreSQL does."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Why(TypeDecorator[Any]):
    """Reasons go in and Weighed comes out; in between there is text. It is made where a row is written, in the writer's thread."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Reasons | None, dialect: Dialect) -> str | None:
        return None if value is None else Weighed.of(value).encoded()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Weighed | None:
        return None if value is None else Weighed.decoded(value)


metadata = MetaData()

# One row a finished request. `writer` and `number` are the row's own: a batch that is written again, since nobody knows whether
# its commit arrived, changes nothing. `id` is the request's, which a client may choose and use twice.
requests = Table(
    "requests",
    metadata,
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("at", Utc, nullable=False),  # when it ended
    Column("caller", Text, nullable=False),  # the name of its key, or anonymous
    Column("endpoint", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("error_code", Text),
    Column("stream", Boolean, nullable=False),
    Column("requested", Text),  # the model that the client asked for, where there is one of that name
    Column("expert", Text),
    Column("model", Text),  # the expert's
    Column("domain", Text),
    Column("confidence", Float(53)),
    Column("reason", Text),
    Column("stage", Text),
    Column("attempts", Text, nullable=False),  # JSON: [{"expert", "replica", "outcome", "seconds"}, …]
    Column("seconds", Float(53), nullable=False),
    Column("ttft", Float(53)),  # seconds, of streams
    Column("route_ms", Float(53)),
    Column("waited", Float(53), nullable=False),  # seconds of `seconds` that others took
    Column("input_tokens", BigInteger),  # less those from the cache
    Column("cached_input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),  # a part of output_tokens
    Column("cost_usd", Float(53)),  # by token prices
    Column("estimated_usd", Float(53)),  # where the expert is paid by the hour: this request's part of it, estimated
    Column("baseline_usd", Float(53)),
    Column("dearest_usd", Float(53)),
    Column("energy_wh", Float(53)),
    Column("prompt", Text),  # only where the operator asked for it
    Column("why", Why),  # JSON, see gateway/weighed.py: what the decision was made from
    Index("requests_at", "at"),
    Index("requests_id", "id", "caller", "at"),
)

# What rows that were too old to keep came to. Every total is the sum over both tables.
daily = Table(
    "daily",
    metadata,
    Column("day", Date, primary_key=True),  # of UTC, on which the requests ended
    Column("expert", Text, primary_key=True),  # empty where none was chosen
    Column("caller", Text, primary_key=True),
    Column("domain", Text, primary_key=True),  # empty where none was known
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),  # those whose outcome is not ok
    Column("seconds", Float(53), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("priced", BigInteger, nullable=False),  # requests whose cost_usd is known
    Column("cost_usd", Float(53), nullable=False),
    Column("estimated_usd", Float(53), nullable=False),
    Column("baseline_usd", Float(53), nullable=False),
    Column("compared", BigInteger, nullable=False),  # requests whose baseline_usd is known
    Column("compared_usd", Float(53), nullable=False),  # what those cost, by token prices and as estimated
    Column("dearest_usd", Float(53), nullable=False),
    Column("dearest_compared_usd", Float(53), nullable=False),  # the same of those whose dearest_usd is known
    Column("energy_wh", Float(53), nullable=False),
)
