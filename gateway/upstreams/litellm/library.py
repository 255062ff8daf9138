"""What is used of litellm, and how it is set: it puts requests into a provider's words and calls nobody else. Alone imports it.

Left out is what it does wrong: /responses and /messages need packages of its proxy that are not here (mcp, orjson), and
/completions opens a connection for every request and leaves it to the garbage collector.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Mapping
from typing import Any

from gateway.upstreams.litellm.arguments import Provider

# Read when litellm is imported. PRODUCTION: no .env file is read. Local maps: nothing is downloaded. No megabyte: a picture's
# address, which a client wrote, is never fetched by us. Words that a model repeats are no error.
SETTINGS = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOG": "ERROR",
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",
    "REPEATED_STREAMING_CHUNK_LIMIT": str(sys.maxsize),
}
# What would change behind experts.yaml's back where requests go, or how: OPENAI_BASE_URL may well be our own address.
AMBIENT = re.compile(r"LITELLM_\w+|USE_LITELLM_PROXY|\w+_(API_BASE|BASE_URL)")
LOGGERS = (
    "LiteLLM",
    "LiteLLM Router",
    "LiteLLM Proxy",
    "openai",
    "httpx",
    "httpcore",
)  # their messages hold addresses, even keys
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    # _skip_mcp_handler: else a tool that a client names could make litellm call other servers, and any tool an import that fails.
    "/chat/completions": ("acompletion", {"_skip_mcp_handler": True}),
    "/embeddings": ("aembedding", {}),
}

log = logging.getLogger("moe_gateway")


class UnknownProviderError(Exception):
    """litellm has nothing by that name."""


class Library:
    """litellm, imported and set. Making one takes seconds and 160 MB, so it is to be made once, in a thread. Raises what
    an import raises."""

    def __init__(self) -> None:
        _set_environment()
        import httpx
        import litellm
        import openai.resources  # noqa: F401 - takes a second, and litellm would do it in the loop
        from litellm._internal_context import is_internal_call

        self._litellm, self._httpx, self._internal = litellm, httpx, is_internal_call
        self._providers: dict[str, Provider] = {}
        self._users: dict[int, int] = {}
        litellm.suppress_debug_info = True
        litellm.drop_params = litellm.modify_params = False
        litellm.disable_streaming_logging = True
        # Usage that a provider did not tell is not guessed, and no tokenizer fetched to do so.
        litellm.disable_token_counter = litellm.disable_hf_tokenizer_download = True
        litellm.callbacks, litellm.success_callback, litellm.failure_callback = [], [], []
        litellm.num_retries, litellm.fallbacks, litellm.cache = None, None, None
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
        asyncio.run(self._warm())

    async def _warm(self) -> None:
        """What litellm imports and builds with its first request would hold up all others for a second."""
        self.join()
        arguments = {"model": "openai/warm", "messages": [{"role": "user", "content": ""}], "mock_response": "warm"}
        for stream in (False, True):
            answer = await self.call("/chat/completions", {**arguments, "stream": stream}, 1.0, 1.0)
            for part in [part async for part in answer] if stream else [answer]:
                part.model_dump()
        await self.leave()

    def provider(self, model: str) -> Provider:
        """Of `provider/model`. Raises UnknownProviderError."""
        if model not in self._providers:
            try:
                name, provider, _, _ = self._litellm.get_llm_provider(model)
            except self._litellm.BadRequestError:
                raise UnknownProviderError(model) from None
            known = self._litellm.get_supported_openai_params(name, provider) or ()
            openai = provider in ("openai", *self._litellm.openai_compatible_providers)
            self._providers[model] = Provider(provider, openai, frozenset(known))
        return self._providers[model]

    def needs_key(self, model: str) -> bool:
        """Whether the provider of `provider/model` is known to ask for one."""
        known = self._litellm.validate_environment(model)
        return bool(known["missing_keys"] or known["keys_in_environment"])

    async def call(self, path: str, arguments: Mapping[str, Any], connect: float, total: float) -> Any:
        """Ask once: neither retried nor logged nor priced for litellm's own books. Raises whatever litellm raises.

        `connect` seconds are kept by the providers that litellm calls through a vendor's client, `total` by all.
        """
        name, more = CALLS[path]
        timeout = self._httpx.Timeout(total, connect=connect)
        token = self._internal.set(True)
        try:
            asked = getattr(self._litellm, name)
            return await asked(**arguments, **more, timeout=timeout, max_retries=0, num_retries=0)
        finally:
            self._internal.reset(token)

    async def disconnect(self, stream: Any) -> None:
        """Close a stream's connection. litellm's own aclose closes only what a vendor's client opened."""
        for response in self._responses(stream):
            await response.aclose()
        await stream.aclose()

    def _responses(self, stream: Any) -> list[Any]:
        """The HTTP responses that a stream of litellm's reads, sought among what it and its iterators hold."""
        found: list[Any] = []
        seen: set[int] = set()
        rest = [stream]
        while rest:
            part = rest.pop()
            if id(part) in seen:
                continue
            seen.add(id(part))
            if isinstance(part, self._httpx.Response):
                found.append(part)
            else:
                rest += _held(part)
        return found

    def join(self) -> None:
        """One more in this event loop uses what is kept of connections; each that joined is to leave."""
        loop = id(asyncio.get_running_loop())
        self._users[loop] = self._users.get(loop, 0) + 1

    async def leave(self) -> None:
        """Close the loop's kept connections with the last that leaves. litellm's own way closes those of every loop."""
        loop = id(asyncio.get_running_loop())
        self._users[loop] = self._users.get(loop, 0) - 1
        if self._users[loop] > 0:
            return
        del self._users[loop]
        kept = self._litellm.in_memory_llm_clients_cache.cache_dict
        for key in [key for key in kept if key.endswith(f"-{loop}")]:
            await kept.pop(key).close()
        shared = self._shared_session()
        if getattr(shared, "_loop", None) is asyncio.get_running_loop():
            await shared.close()
        await asyncio.sleep(0)  # a transport is closed in the loop's next turn

    def _shared_session(self) -> Any:
        """What the one client that litellm has for all loops keeps of connections, None if it was not used. It makes a new session
        where it finds its last one closed or another loop's, and only that of its first loop is in the cache."""
        client = vars(self._litellm).get("module_level_aclient")
        return getattr(getattr(getattr(client, "client", None), "_transport", None), "client", None)


_LOADING = threading.Lock()
_LOADED: list[Library | Exception] = []


def library() -> Library:
    """The process's library, made by whoever asks first. What the import raised is kept as well, and raised again: an import
    that fails costs as much as one that does not."""
    with _LOADING:
        if not _LOADED:
            try:
                _LOADED.append(Library())
            except Exception as error:  # noqa: BLE001 - told by every caller
                _LOADED.append(error)
    found = _LOADED[0]
    if isinstance(found, Exception):
        raise found
    return found


def _held(part: Any) -> list[Any]:
    """What an iterator over an answer holds; nothing of a client, whose other answers are not to be touched."""
    if inspect.isasyncgen(part):
        return list(part.ag_frame.f_locals.values()) if part.ag_frame else []
    package = type(part).__module__.partition(".")[0]
    if package not in ("litellm", "openai") or type(part).__name__ == "Logging":
        return []
    return list(getattr(part, "__dict__", {}).values())


def _set_environment() -> None:
    """The environment in which litellm is imported, and which it reads again with every request."""
    ambient = [name for name in os.environ if AMBIENT.fullmatch(name) and name not in SETTINGS]
    if ambient:
        log.warning(
            "variables that would change where litellm's requests go are not used: say it in experts.yaml",
            extra={"variables": ambient},
        )
    for name in ambient:
        del os.environ[name]
    os.environ.update(SETTINGS)
