"""Minutes of a gateway's life for the pictures in docs/: the project's own prompts at a pace that changes, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.dashboards.traffic import ADMIN_KEY
from tests.dashboards.workers import Pace, Worker
from tests.deploy.files import ROOT
from tests.fakes.owner import FakeOwner, facts

PROMPTS = ROOT / "router" / "measuring" / "own.jsonl"
KEYS = {"search": "scene-key-search", "support": "scene-key-support", "research": "scene-key-research"}
SHARES = {"search": 0.5, "support": 0.3, "research": 0.2}
MIX = {"code": 0.38, "math": 0.2, "bio": 0.17, "general": 0.25}
PER_SECOND = 4.0
DEEPEST = 6  # turns of a conversation
PACES = {  # about what such models do on a GPU each
    "coder": Pace(0.16, 0.011, 90), "mathematician": Pace(0.22, 0.009, 160), "biologist": Pace(0.12, 0.014, 70),
    "general": Pace(0.14, 0.010, 80), "archivist": Pace(0.3, 0.012, 60),
}  # fmt: skip


def servers() -> dict[str, list[Worker]]:
    """Those of each expert."""
    replicas = {"coder": 2, "mathematician": 1, "biologist": 2, "general": 2, "archivist": 1}
    return {name: [Worker(f"model-{name}", PACES[name]) for _ in range(number)] for name, number in replicas.items()}


def experts_file(workers: Mapping[str, Sequence[Worker]]) -> dict[str, Any]:
    """experts.yaml: paid by tokens, but for the two whose GPUs are paid by the hour; a baseline of one's own choice."""
    about: dict[str, dict[str, Any]] = {
        "coder": {
            "domains": {"code": 0.95, "math": 0.75},
            "price": {"input": 0.50, "cached_input": 0.05, "output": 1.20},
            "energy": {"watts": 700, "idle_watts": 110, "gco2e_per_kwh": 380},
            "fallbacks": ["general"],
        },
        "mathematician": {
            "domains": {"math": 0.95, "code": 0.7},
            "price": {"gpu_hour": 2.5},
            "energy": {"watts": 700, "idle_watts": 110, "gco2e_per_kwh": 380},
            "max_in_flight": 3,
            "queue": {"length": 6, "wait": "4s"},
            "fallbacks": ["general"],
        },
        "biologist": {
            "domains": {"bio": 0.95}, "price": {"input": 0.08, "output": 0.16}, "fallbacks": ["general"]
        },
        "general": {"domains": {"general": 0.9, "code": 0.6, "math": 0.6, "bio": 0.6}, "price": {"input": 0.03, "output": 0.14}},
        "archivist": {
            "domains": {"general": 0.3}, "price": {"gpu_hour": 1.2}, "upstream": {"launch": {"engine": "vllm"}},
            "sleep_after": "10m",
        },
    }  # fmt: skip
    timeouts = {"connect": "2s", "first_byte": "10s", "idle": "10s", "total": "60s"}
    experts = {
        name: {
            "model": workers[name][0].model, "upstream": {"vllm": [w.url for w in workers[name]]}, "timeouts": timeouts, **more
        }
        for name, more in about.items()
    }  # fmt: skip
    return {"version": 1, "router": {"fallback": "general"}, "baseline": "gpt-4o", "experts": experts}


@dataclass
class Scene:
    """`seconds` of it at the gateway at `url`."""

    url: str
    config: Path
    workers: Mapping[str, Sequence[Worker]]
    owner: FakeOwner
    seconds: float
    chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - to be repeated, not secret

    async def play(self) -> None:
        by_domain: dict[str, list[str]] = {domain: [] for domain in MIX}
        for line in PROMPTS.read_text("utf-8").splitlines():
            row = json.loads(line)
            if row.get("domain") in by_domain and row.get("prompt"):
                by_domain[row["domain"]].append(row["prompt"])
        async with aiohttp.ClientSession(self.url, connector=aiohttp.TCPConnector(limit=0)) as session:
            tasks = [asyncio.create_task(self._mishaps(session))]
            end = time.monotonic() + self.seconds
            while (left := end - time.monotonic()) > 0:
                await asyncio.sleep(self.chance.expovariate(self._pace(1 - left / self.seconds)))
                tasks.append(asyncio.create_task(self._talk(session, by_domain)))
            self.over = time.time()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _pace(self, share: float) -> float:
        """Conversations that begin by the second, when so much of the time has gone: waves, and a rush at 60 %."""
        rush = 1.2 * math.exp(-(((share - 0.6) / 0.05) ** 2))
        return PER_SECOND / 2 * (1 + 0.35 * math.sin(share * 14) + 0.15 * math.sin(share * 41) + rush)

    async def _talk(self, session: aiohttp.ClientSession, prompts: Mapping[str, Sequence[str]]) -> None:
        """One conversation: most have one turn, some change their subject."""
        domain = self.chance.choices(list(MIX), list(MIX.values()))[0]
        key = self.chance.choices(list(KEYS), list(SHARES.values()))[0]
        said: list[dict[str, str]] = []
        for _ in range(self.chance.choices(range(1, DEEPEST + 1), [6, 3, 2, 1, 1, 1])[0]):
            if self.chance.random() < 0.08:
                domain = self.chance.choice(list(MIX))
            said.append({"role": "user", "content": self.chance.choice(prompts[domain])})
            if not await self._ask(session, said, key):
                return
            said.append({"role": "assistant", "content": "word " * 20})
            await asyncio.sleep(self.chance.uniform(0.5, 4))

    async def _ask(
        self, session: aiohttp.ClientSession, said: list[dict[str, str]], key: str, model: str = "auto"
    ) -> bool:
        body: dict[str, Any] = {"model": model, "messages": said, "stream": self.chance.random() < 0.8}
        body["max_tokens"] = max(8, round(self.chance.lognormvariate(3.9, 0.6)))
        if self.chance.random() < 0.004:
            body["vllm_xargs"] = {"cut": 5}
        leaves = self.chance.random() < 0.015
        headers = {"authorization": f"Bearer {KEYS[key]}"}
        with suppress(aiohttp.ClientError, asyncio.TimeoutError):
            async with session.post("/v1/chat/completions", json=body, headers=headers) as answer:
                if leaves:
                    await asyncio.wait_for(answer.content.read(200), 0.4)
                    answer.close()
                    return False
                await answer.read()
                return answer.status == 200
        return False

    async def _mishaps(self, session: aiohttp.ClientSession) -> None:
        """What goes wrong, and is done, at which part of the time."""
        plan = (
            (0.06, self._wake), (0.25, self._break_coder), (0.33, self._mend_coder), (0.40, self._doze), (0.45, self._reload),
            (0.52, self._fail_reload), (0.55, self._wake), (0.70, self._lose_biologist), (0.80, self._find_biologist),
            (0.85, self._doze),
        )  # fmt: skip
        for share, what in plan:
            await asyncio.sleep(max(0.0, self._began + share * self.seconds - time.monotonic()))
            await what(session)

    over: float = 0.0  # when nobody began to ask any more, in unix seconds
    _began: float = field(default_factory=time.monotonic)
    _wakes: int = 0
    _background: asyncio.Task[None] | None = None

    async def _wake(self, session: aiohttp.ClientSession) -> None:
        self._wakes += 1
        self._tell("ready")
        self._background = asyncio.create_task(self._ask_archivist(session))

    async def _ask_archivist(self, session: aiohttp.ClientSession) -> None:
        for _ in range(15):
            await asyncio.sleep(self.seconds / 60)
            said = [{"role": "user", "content": "Summarise the minutes of our last three meetings"}]
            await self._ask(session, said, "research", model="archivist")

    async def _doze(self, session: aiohttp.ClientSession) -> None:
        self._tell("asleep", since=time.time())

    async def _break_coder(self, session: aiohttp.ClientSession) -> None:
        self.workers["coder"][0].broken = True

    async def _mend_coder(self, session: aiohttp.ClientSession) -> None:
        self.workers["coder"][0].broken = False

    async def _lose_biologist(self, session: aiohttp.ClientSession) -> None:
        for worker in self.workers["biologist"]:
            worker.healthy, worker.broken = False, True

    async def _find_biologist(self, session: aiohttp.ClientSession) -> None:
        for worker in self.workers["biologist"]:
            worker.healthy, worker.broken = True, False

    async def _reload(self, session: aiohttp.ClientSession) -> None:
        self.config.write_text(self.config.read_text().replace('"output": 1.2', '"output": 1.1'))
        await self._ask_reload(session)

    async def _fail_reload(self, session: aiohttp.ClientSession) -> None:
        good = self.config.read_text()
        self.config.write_text(good.replace('"domains"', '"domians"'))
        await self._ask_reload(session)
        self.config.write_text(good)

    async def _ask_reload(self, session: aiohttp.ClientSession) -> None:
        async with session.post("/admin/reload", headers={"authorization": f"Bearer {ADMIN_KEY}"}) as answer:
            await answer.read()

    def _tell(self, state: str, **more: Any) -> None:
        """The owner of the launched worker says how it is."""
        [worker] = self.workers["archivist"]
        self.owner.tell(
            facts("archivist-0", state, worker.url, wakes=self._wakes, wake_seconds=6.2, restarts=0, **more)
        )
