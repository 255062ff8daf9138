"""GET /v1/receipts/{request id}: what one request of the caller's own came to. For the admin there is /admin/receipts/."""

from __future__ import annotations

import re

import msgspec
from fastapi import APIRouter, Request, Response

from gateway.errors import BusyError, NotFoundError
from gateway.ledger.errors import LedgerError
from gateway.ledger.lookups import Lookups
from gateway.receipt import Receipt
from gateway.recent import Recent

routes = APIRouter()
SAFE_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")  # what asgi.py lets through
RETRY_SECONDS = 2
NOT_FOUND = (
    "There is no receipt of that request: it still runs, or its id is not one of yours. A receipt is there within a second of the "
    "last byte of the answer."
)
NO_LEDGER = (
    " This gateway keeps no ledger: it has the receipts of the last ten minutes at most, each process those of its own."
)


@routes.get("/v1/receipts/{request_id}", tags=["receipts"])
async def receipt(request: Request, request_id: str) -> Response:
    """What the request came to: the decision, the attempts, tokens, cost, times. Of several with that id the latest.

    Requests of other keys, those that are not known and those that still run are 404 `receipt_not_found` alike: ask again
    within a second or so of the answer's last byte.
    """
    return await _answer(request, request_id, request.scope["state"]["caller"])


@routes.get("/admin/receipts/{request_id}", tags=["admin"])
async def anyones_receipt(request: Request, request_id: str) -> Response:
    """The same of whoever's request it was."""
    return await _answer(request, request_id, None)


async def _answer(request: Request, request_id: str, caller: str | None) -> Response:
    found = await _find(request, request_id, caller)
    if found is None:
        note = NO_LEDGER if request.app.state.lookups is None else ""
        raise NotFoundError(NOT_FOUND + note, param="request_id", code="receipt_not_found")
    return Response(msgspec.json.encode(found), media_type="application/json", headers={"cache-control": "no-store"})


async def _find(request: Request, request_id: str, caller: str | None) -> Receipt | None:
    """From memory, else from the ledger. Raises BusyError."""
    if not SAFE_ID.fullmatch(request_id):
        return None
    recent: Recent = request.app.state.recent
    lookups: Lookups | None = request.app.state.lookups
    if (found := recent.of(caller, request_id)) is not None or lookups is None:
        return found
    try:
        row = await lookups.row(request_id, caller)
    except LedgerError:
        message = "The ledger cannot be read at the moment; ask again."
        raise BusyError(message, RETRY_SECONDS, code="ledger_unavailable") from None
    return None if row is None else Receipt.of(row)
