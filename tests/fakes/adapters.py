"""A vLLM worker as far as its models and LoRA adapters go, in the bodies of vLLM 0.32, and an upstream of such workers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from gateway.exchange import Outcome
from gateway.upstreams.base import Address, UpstreamError
from router.experts import Timeouts
from tests.fakes.memory import FakeReply, FakeUpstream


def error(status: int, message: str, kind: str, param: str | None = None) -> tuple[int, bytes]:
    return status, json.dumps({"error": {"message": message, "type": kind, "param": param, "code": status}}).encode()


@dataclass
class Worker:
    """`adapters` maps those that are loaded to their paths, `folders` the paths where one is to its rank. Its lists are asked
    for `asked` times; what it was told to do stands in `told`."""

    base: str = "base"
    window: int | None = 2048
    adapters: dict[str, str] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)
    routes: bool = True  # VLLM_ALLOW_RUNTIME_LORA_UPDATING
    enabled: bool = True  # --enable-lora
    key: str | None = None
    owner: str = "vllm"
    parent: str | None = None  # of every adapter; the base where it is None
    tools: bool = True  # --enable-auto-tool-choice
    grammar: bool = True
    schemas_looked_at: bool = True
    pictures: bool = False
    endpoints: tuple[str, ...] = (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/tokenize",
    )
    list_body: bytes | None = None  # in place of the list
    hung: bool = False
    up: bool = True
    asked: int = 0
    told: list[str] = field(default_factory=list)
    generated: list[str] = field(default_factory=list)  # the models that wrote something

    def answer(self, path: str, body: Mapping[str, Any] | None, key: str | None) -> tuple[int, bytes]:
        """What it says to a request for `path`, a GET where there is no body."""
        if path.startswith("/v1/") and self.key is not None and key != f"Bearer {self.key}":
            return 401, b'{"error":"Unauthorized"}'
        if path == "/health":
            return 200 if self.up else 503, b""
        if path == "/openapi.json":
            lora = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter") if self.routes else ()
            return 200, json.dumps({"paths": {path: {} for path in (*self.endpoints, *lora)}}).encode()
        if path == "/v1/models" and body is None:
            self.asked += 1
            return 200, self.list_body if self.list_body is not None else json.dumps(self._list()).encode()
        if body is not None and self.routes and path == "/v1/load_lora_adapter":
            return self._load(body["lora_name"], body["lora_path"], body.get("load_inplace", False))
        if body is not None and self.routes and path == "/v1/unload_lora_adapter":
            return self._unload(body["lora_name"])
        if body is not None and path in self.endpoints:
            return self._tokens(body) if path == "/tokenize" else self._text(path, body)
        return 404, b'{"detail":"Not Found"}'

    def _text(self, path: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """What the model says is its name; refusals come in vLLM's order."""
        model = body["model"]
        if not self.has(model):
            said = f"The model `{model}` does not exist. Valid aliases: {self.base}."
            return error(404, said, "NotFoundError", "model")
        if body.get("tools") and not self.tools:
            said = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            return error(400, said, "BadRequestError")
        if (tokens := body.get("max_tokens") or 0) > (self.window or 2**30):
            said = (
                f"max_tokens={tokens} cannot be greater than max_model_len={self.window}. Please request fewer output "
                f"tokens. (parameter=max_tokens, value={tokens})"
            )
            return error(400, said, "BadRequestError", "max_tokens")
        if (wanted := body.get("response_format")) and not self.grammar:
            return error(400, "Structured outputs are not yet supported for this kind of model.", "BadRequestError")
        if wanted and self.schemas_looked_at and wanted["json_schema"]["schema"]["type"] != "object":
            return error(400, "Failed to convert the grammar from a schema to a state machine.", "BadRequestError")
        self.generated.append(model)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": model},
            "text": model,
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        return 200, json.dumps({"id": "c-1", "model": model, "choices": [choice], "usage": usage}).encode()

    def _tokens(self, body: Mapping[str, Any]) -> tuple[int, bytes]:
        pictures = [m for m in body.get("messages", ()) if not isinstance(m["content"], str)]
        if pictures and not self.pictures:
            return error(400, f"{self.base} is not a multimodal model", "BadRequestError")
        return 200, b'{"count":3,"max_model_len":2048,"tokens":[1,2,3]}'

    def has(self, model: str) -> bool:
        return model == self.base or model in self.adapters

    def _list(self) -> dict[str, Any]:
        cards = [self._card(self.base, f"/models/{self.base}", None, self.window)]
        cards += [self._card(name, path, self.parent or self.base, None) for name, path in self.adapters.items()]
        return {"object": "list", "data": cards}

    def _card(self, name: str, root: str, parent: str | None, window: int | None) -> dict[str, Any]:
        permission = {
            "id": "modelperm-1",
            "object": "model_permission",
            "created": 1,
            "allow_view": True,
            "group": None,
        }
        about = {"id": name, "object": "model", "created": 1, "owned_by": self.owner, "root": root, "parent": parent}
        return {**about, "max_model_len": window, "permission": [permission]}

    def _load(self, name: str, path: str, in_place: bool) -> tuple[int, bytes]:
        self.told.append(f"load {name} {path}" + (" in place" if in_place else ""))
        if name == self.base:
            return error(400, f"The lora adapter '{name}' conflicts with a served base model.", "InvalidUserInput")
        if name in self.adapters and not in_place:
            said = (
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, "
                "set 'load_inplace' to True."
            )
            return error(400, said, "InvalidUserInput")
        if not self.enabled:
            return self._failed("LoRA is not enabled. Use --enable-lora to enable LoRA.")
        if path not in self.folders:
            return error(404, f"Loading lora {name} failed: No adapter found for <path>", "NotFoundError")
        if (rank := self.folders[path]) > 8:
            return self._failed(f"LoRA rank {rank} is greater than max_lora_rank 8.")
        self.adapters[name] = path
        return 200, f"Success: LoRA adapter '{name}' added successfully.".encode()

    def _failed(self, why: str) -> tuple[int, bytes]:
        said = f"Call to add_lora method failed: Worker failed with error '{why}', please check the stack trace above"
        return error(500, f"{said} for the root cause", "InternalServerError")

    def _unload(self, name: str) -> tuple[int, bytes]:
        self.told.append(f"unload {name}")
        if name not in self.adapters:
            return error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        del self.adapters[name]
        return 200, f"Success: LoRA adapter '{name}' removed successfully.".encode()


@dataclass
class Workers(FakeUpstream):
    """An upstream of workers, by address."""

    workers: dict[str, Worker] = field(default_factory=dict)

    async def healthy(self, address: Address) -> bool:
        return address.url is not None and self.workers[address.url].up

    async def fetch(self, address: Address, path: str) -> bytes | None:
        await asyncio.sleep(0)
        status, body = self._answer(address, path, None)
        return body if status == 200 else None

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        fresh: bool = False,
    ) -> FakeReply:
        await asyncio.sleep(0)
        if address.url is not None and self.workers[address.url].hung:
            await asyncio.Event().wait()
        status, content = self._answer(address, f"/v1{path}", json.loads(body))
        return FakeReply(content, status=status, headers={"content-type": "application/json"})

    def _answer(self, address: Address, path: str, body: Mapping[str, Any] | None) -> tuple[int, bytes]:
        worker = self.workers[address.url] if address.url else None
        if worker is None or not worker.up:
            raise UpstreamError(Outcome.CONNECT_ERROR, "it could not be reached")
        return worker.answer(path, body, f"Bearer {address.api_key}" if address.api_key else None)


@contextmanager
def worker_server(worker: Worker) -> Iterator[str]:
    """The worker over HTTP on loopback, in a thread of its own; its address."""
    loop = asyncio.new_event_loop()

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.method == "POST" else None
        status, content = worker.answer(request.path, body, request.headers.get("authorization"))
        return web.Response(status=status, body=content, content_type="application/json")

    async def begin() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(begin(), loop).result(30)
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
