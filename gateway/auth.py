"""Who is calling."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from gateway.errors import AuthenticationError

ANONYMOUS = "anonymous"


class Keyring:
    """Named keys. With none, every caller is anonymous and welcome."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = {name: key.encode() for name, key in keys.items()}

    def caller(self, headers: Mapping[bytes, bytes]) -> str:
        """The name of the key in `headers` (lower-case names): Authorization: Bearer, or x-api-key. Raises AuthenticationError."""
        if not self._keys:
            return ANONYMOUS
        given = _given(headers)
        if given is None:
            raise AuthenticationError("No API key: send Authorization: Bearer KEY, or x-api-key: KEY.")
        # Every key is compared, whole, whichever fits: how long it takes tells nothing.
        found = [name for name, key in self._keys.items() if hmac.compare_digest(key, given)]
        if not found:
            raise AuthenticationError("That API key is not known here.")
        return found[0]


def _given(headers: Mapping[bytes, bytes]) -> bytes | None:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return headers.get(b"x-api-key", b"").strip() or None
