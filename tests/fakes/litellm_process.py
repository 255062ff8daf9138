"""A process that does nothing but ask a provider through the adapter, and tells which connections and threads that took."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading

from gateway.upstreams.litellm.upstream import LiteLLMUpstream, ProviderAddress
from router.experts import Timeouts

connected: set[tuple[str, int]] = set()


def audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        connected.add((str(arguments[1][0]), int(arguments[1][1])))


async def main(url: str) -> None:
    sys.addaudithook(audit)
    upstream = LiteLLMUpstream()
    await upstream.start()
    statuses = []
    messages = [{"role": "user", "content": "hi"}]
    for more in ({}, {"stream": True}, {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"teapot": True}):
        body = json.dumps({"messages": messages, **more}).encode()
        where = ProviderAddress("openai/no-such-model-in-any-map", url, "sk-file")
        reply = await upstream.post(where, "/chat/completions", body, {}, Timeouts())
        await reply.read()
        statuses.append(reply.status)
    await upstream.close()
    await asyncio.sleep(0.1)
    told = {
        "connected": sorted(connected),
        "statuses": statuses,
        "base_url_kept": "OPENAI_BASE_URL" in os.environ,
        "threads": [thread.name for thread in threading.enumerate()],
        "tasks": len(asyncio.all_tasks()),
    }
    print(json.dumps(told))


asyncio.run(main(sys.argv[1]))
