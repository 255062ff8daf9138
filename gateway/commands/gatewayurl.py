"""The address of a running gateway, as --url has it, and the key to ask it with, as the environment has it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gateway.console import fail

if TYPE_CHECKING:
    from gateway.upstreams.base import Address

KEY = "MOE_GATEWAY_KEY"
ADMIN_KEY = "MOE_GATEWAY_ADMIN_KEY"


def gateway_address(url: str, variable: str) -> Address:
    """Leaves with status 2 where it is no address."""
    from gateway.upstreams.base import FixedAddress

    checked = checked_url(url)
    checked = checked if checked.endswith("/v1") else f"{checked}/v1"
    return FixedAddress(checked, os.environ.get(variable, "").strip() or None)


def checked_url(url: str) -> str:
    """The same for any server's address."""
    from pydantic import TypeAdapter, ValidationError

    from router.values import HttpUrl

    try:
        return TypeAdapter(HttpUrl).validate_python(url)
    except ValidationError as error:
        fail(f"--url: {error.errors()[0]['msg'].removeprefix('Value error, ')}", 2)
