"""What a running gateway says of the configuration that it serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.commands.gatewayurl import ADMIN_KEY
from gateway.console import fail, out

if TYPE_CHECKING:
    from gateway.upstreams.base import Address

PATH = "/admin/config"
SECONDS = 10.0


def ask(gateway: Address) -> Mapping[str, Any]:
    """What GET /admin/config answers. Leaves with status 1 where that cannot be had."""
    from gateway.upstreams.base import UpstreamError

    try:
        code, body = asyncio.run(_asked(gateway))
    except UpstreamError as error:
        fail(f"no gateway answers there ({error}); start one with moe-gateway serve, or name it with --url")
    if code in (401, 403):
        fail(f"it asks for its admin key: set {ADMIN_KEY}")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if code != 200 or not isinstance(told, dict) or not isinstance(told.get("status"), str):
        fail(f"what answers there is no moe-gateway that tells its configuration (status {code})")
    return told


async def _asked(gateway: Address) -> tuple[int, bytes]:
    from gateway.upstreams.openai import OpenAIUpstream

    upstream = OpenAIUpstream()
    await upstream.start()
    try:
        return await upstream.get(gateway, PATH, SECONDS)
    finally:
        await upstream.close()


def show(told: Mapping[str, Any], config: Path, here: str | None) -> None:
    """`here` is the digest of the files at `config`, None where there are none."""
    from rich.text import Text

    from gateway.listing import shown

    def row(name: str, value: object, style: str = "") -> None:
        if value not in (None, "", []):
            out.print(Text.assemble((f"{name:<10}", "bold"), (shown(str(value), 400), style)), soft_wrap=True)

    refused = told["status"] == "refused"
    row("status", told["status"], "red" if refused else "yellow" if told["status"] == "preparing" else "green")
    row("serves", f"{told.get('config')} since {told.get('since')}")
    row("router", told.get("router"))
    row("experts", ", ".join(map(str, told.get("experts") or [])))
    row("files", ", ".join(map(str, told.get("files") or [])))
    row("watches", told.get("watch"))
    for change in told.get("changes") or []:
        row("changed", change)
    for warning in told.get("warnings") or []:
        row("warning", warning, "yellow")
    tried = f" at {told['tried']}" if told.get("tried") else ""
    row("refused" if refused else "prepares", f"{told['wanted']}{tried}" if told.get("wanted") else None)
    progress = told.get("progress")
    if isinstance(progress, dict):
        row("training", f"{progress.get('step')} {progress.get('done')} of {progress.get('total')}")
    for problem in told.get("problems") or []:
        row("problem", problem, "red")
    if here is not None:
        same = here == told.get("config")
        row("here", f"{here}, {'' if same else 'not '}what is served: {config}", "" if same else "yellow")
