"""What can go wrong with the ledger.

LedgerError
├── LedgerUrlError       the URL is none that a ledger can be at; known before anything is served
└── NewerLedgerError     the database was made by a newer moe-gateway
"""

from __future__ import annotations

from router.errors import RouterError


class LedgerError(RouterError):
    """The message is one line, with neither a password nor an address in it."""


class LedgerUrlError(LedgerError):
    pass


class NewerLedgerError(LedgerError):
    pass
