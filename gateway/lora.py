"""LoRA adapters: vLLM is told to load those that its file has a path for, and to unload those that no file has any more.

To load one twice, or to unload one that is gone, does no harm: several gateways, and several processes of one, do it at once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

from gateway.pool import Pool
from gateway.replica import Replica, by_server
from gateway.upstreams.base import Address, FixedAddress, Upstream, UpstreamError
from gateway.upstreams.sending import plain, refusal, send
from router.experts import Expert, ExpertsFile
from router.upstream import Adapter

log = logging.getLogger("moe_gateway")

LOAD_SECONDS = 120.0  # it may come from the hub; a worker that takes longer goes on, and is asked again
UNLOAD_SECONDS = 10.0
ROUTES_OFF = (
    "its routes for adapters are off; start the worker with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora"
)
_INNER = re.compile(r"Worker failed with error '(.*)', please check", re.DOTALL)


async def load(upstream: Upstream, address: Address, adapter: Adapter, in_place: bool = False) -> str | None:
    """Tell the server to load an adapter; why it did not, None where it has it now. With `in_place` the adapter that has its
    name gives way to it."""
    body: dict[str, Any] = {"lora_name": adapter.name, "lora_path": adapter.path} | (
        {"load_inplace": True} if in_place else {}
    )
    try:
        status, content = await send(upstream, address, "/load_lora_adapter", body, LOAD_SECONDS)
    except UpstreamError as error:
        return str(error)
    if status == 200 or (status == 400 and b"already been loaded" in content):
        return None
    return plain(_reason(status, content, adapter), address)


async def unload(upstream: Upstream, address: Address, name: str) -> str | None:
    """Tell the server to unload an adapter; why it did not, None where it is gone now."""
    try:
        status, content = await send(upstream, address, "/unload_lora_adapter", {"lora_name": name}, UNLOAD_SECONDS)
    except UpstreamError as error:
        return str(error)
    if status == 200 or (status == 404 and refusal(content) is not None):
        return None
    return plain(_reason(status, content), address)


def leftovers(pool: Pool, newest: ExpertsFile) -> Iterator[Replica]:
    """Of a pool whose file is no longer served by: a replica for each adapter at one of its servers that was for the gateway to
    load, and that neither the pools which still serve nor the `newest` file want there."""
    experts = {replica: expert for expert, replicas in pool.replicas.items() for replica in replicas}
    serving = set(pool.others())
    for together in by_server({**experts, **dict.fromkeys(serving)}):
        used = {replica.model for replica in together if replica in serving}
        for replica in together:
            if replica in experts and _is_ours(pool.file, experts[replica]) and replica.model not in used:
                used.add(replica.model)
                if not any(_wants(spec, replica) for spec in newest.experts.values()):
                    yield replica


async def unload_leftovers(upstream: Upstream, pool: Pool, newest: ExpertsFile) -> None:
    """To be called when nothing that began by the pool's file is in flight any more."""
    for replica in list(leftovers(pool, newest)):
        if replica.up is False or replica.address.url is None:
            continue  # when it comes back it has none but those that it is started with
        why = await unload(upstream, replica.address, replica.model)
        said = {"replica": replica.name, "adapter": replica.model}
        if why is None:
            log.info("adapter unloaded", extra=said)
        else:
            log.warning("adapter not unloaded", extra={**said, "why": why})


def _is_ours(file: ExpertsFile, expert: str) -> bool:
    """Whether it is for the gateway to load: it has a path, and its worker is not started with it."""
    upstream = file.experts[expert].upstream
    launch = file.experts[upstream.worker or expert].upstream.launch
    adapter = upstream.adapter
    return adapter is not None and adapter.path is not None and not (launch and adapter.name in launch.lora_modules)


def _wants(spec: Expert, replica: Replica) -> bool:
    """Whether an expert of another file wants the replica's adapter where it is, as far as can be told."""
    upstream, address = spec.upstream, replica.address
    if upstream.adapter is None or upstream.adapter.name != replica.model:
        return False
    return any(other.url == address.url for other in upstream.vllm) or (
        not isinstance(address, FixedAddress) and not upstream.vllm
    )


def _reason(status: int, content: bytes, adapter: Adapter | None = None) -> str:
    message = refusal(content)
    if status in (401, 403):
        return "it refuses the key"
    if message is None:
        return ROUTES_OFF if status in (404, 405) else f"it answered with status {status}"
    if "LoRA is not enabled" in message:
        return "LoRA is off there; start the worker with --enable-lora"
    if adapter is not None and "No adapter found" in message:
        return f"there is no adapter at {adapter.path} on its machine"
    inner = _INNER.search(message)
    return inner[1] if inner else message
