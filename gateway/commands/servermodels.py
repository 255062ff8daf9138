"""The models that a running server has, asked of it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from gateway.console import fail

if TYPE_CHECKING:
    from gateway.listing import Listing

SECONDS = 10.0


def models_at(url: str, key: str | None) -> Listing:
    """What GET /v1/models says at `url`, which ends in /v1; `key` is the environment variable that holds its key.

    Leaves with status 1 where that cannot be had.
    """
    from gateway.listing import read_listing
    from gateway.upstreams.base import UpstreamError

    secret = os.environ.get(key, "").strip() if key else None
    if key and not secret:
        fail(f"--api-key: the environment variable {key} is not set")
    try:
        status, body = asyncio.run(_asked(url, secret))
    except UpstreamError as error:
        fail(f"--url: {error}; start the server first, or name the model to be written without asking it")
    if status in (401, 403):
        wrong = f"it refuses the key in {key}" if key else "it asks for a key: name its variable with --api-key NAME"
        fail(f"--url: {wrong}")
    listing = read_listing(body) if status == 200 else None
    if listing is None:
        fail(
            f"--url: it has no list of models at /v1/models (status {status}); name the model to be written without asking"
        )
    if not listing.cards:
        fail("--url: its list of models is empty")
    return listing


async def _asked(url: str, secret: str | None) -> tuple[int, bytes]:
    from gateway.upstreams.base import FixedAddress
    from gateway.upstreams.openai import OpenAIUpstream

    upstream = OpenAIUpstream()
    await upstream.start()
    try:
        return await upstream.get(FixedAddress(url, secret), "/v1/models", SECONDS)
    finally:
        await upstream.close()
