"""GET /admin/usage: the figures of moe-gateway usage."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from gateway.errors import BadRequestError, BusyError, NotFoundError
from gateway.ledger.asked import GROUPS, Asked, AskedError, read_asked
from gateway.ledger.errors import LedgerError
from gateway.ledger.lookups import Lookups

routes = APIRouter(tags=["admin"])
MOST_ROWS = 10_000
RETRY_SECONDS = 2
FORMATS = ("json", "csv")
ABOUT: Mapping[str, str] = {
    "by": f"What makes a row, commas between: {', '.join(GROUPS)}. Else expert.",
    "since": "From when on: 7d, 24h or 30m ago, a day such as 2026-11-30, a time such as 2026-11-30T12:00, or all. Else 7d.",
    "until": "Until when, in the same words. Else now.",
    "tz": "The time zone of days and hours, such as Europe/Berlin. Else UTC.",
    "expert": "These experts alone, commas between; may be given several times.",
    "key": "The requests of these keys alone, by their names, in the same way.",
    "format": "json or csv. Else json.",
}
PARAMETERS: list[dict[str, Any]] = [
    {"name": name, "in": "query", "required": False, "description": about, "schema": {"type": "string"}}
    for name, about in ABOUT.items()
]


@routes.get("/admin/usage", openapi_extra={"parameters": PARAMETERS})
async def usage(request: Request) -> Response:
    """Requests, errors, tokens, cost, savings and times from the ledger, a row for each group, and all together.

    A question whose answer would have more than 10,000 rows is refused.
    """
    lookups: Lookups | None = request.app.state.lookups
    if lookups is None:
        raise NotFoundError("This gateway keeps no ledger: it was started with --ledger none.", code="no_ledger")
    try:
        asked, form = _asked(request.query_params.multi_items())
        report = await lookups.usage(asked, MOST_ROWS)
    except AskedError as error:
        raise BadRequestError(f"{error}.", param=error.param) from None
    except LedgerError:
        message = "The ledger cannot be read at the moment, or not in so short a time; ask again, or for less."
        raise BusyError(message, RETRY_SECONDS, code="ledger_unavailable") from None
    headers = {"cache-control": "no-store"}
    if form == "csv":
        headers["content-disposition"] = 'attachment; filename="usage.csv"'
        return Response(await asyncio.to_thread(report.csv), media_type="text/csv; charset=utf-8", headers=headers)
    text = await asyncio.to_thread(lambda: msgspec.json.encode(report.described()))
    return Response(text, media_type="application/json", headers=headers)


def _asked(said: Sequence[tuple[str, str]]) -> tuple[Asked, str]:
    """What is asked, and in which format. Raises AskedError."""
    given: dict[str, list[str]] = {}
    for name, value in said:
        if name not in ABOUT:
            near = get_close_matches(name[:40], ABOUT, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ABOUT)}"
            raise AskedError(name[:40], f"there is no parameter {name[:40]!r}; {hint}")
        if name in given and name not in ("expert", "key"):
            raise AskedError(name, f"{name} stands twice")
        given.setdefault(name, []).append(value)
    experts, keys, (form,) = given.pop("expert", []), given.pop("key", []), given.pop("format", ["json"])
    if form not in FORMATS:
        raise AskedError("format", f"format is not {form[:40]!r}; it is json or csv")
    words = {name: value for name, (value,) in given.items()}
    return read_asked(words, experts, keys), form
