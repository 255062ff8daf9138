"""The stage on which official clients play: a gateway as users start it, over models that mind what they are asked."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.clients.groups import GROUPS, ROOT, Group, environment
from tests.fakes.model.server import FakeModel, fake_model
from tests.integration.conftest import Command, serve

KEY = "a-key-for-clients"
LIMIT_SECONDS = 240  # the clients' imports alone take half a minute of a busy machine
BROKEN = 5
DOMAINS = {"coder": "{code: 0.95}", "biologist": "{bio: 0.95}", "general": "{general: 0.9}"}
NEVER = "{code: 0.01, math: 0.01, bio: 0.01, general: 0.01}"  # an expert that is only named, never chosen


@dataclass(frozen=True)
class Stage:
    """`native` serves every endpoint, `plain` chat alone; `faulty` has a model of its own for each group of clients."""

    gateway: Command
    native: FakeModel
    plain: FakeModel
    faulty: Mapping[str, FakeModel]

    def told(self, group: str) -> str:
        """What the clients of a group have to know, as JSON."""
        return json.dumps(
            {
                "url": self.gateway.url,
                "key": KEY,
                "native": self.native.url,
                "plain": self.plain.url,
                "faulty": self.faulty[group].url,
                "faulty_model": f"faulty-{group}",
                "broken_model": f"broken-{group}-",
            }
        )


@dataclass(frozen=True)
class Result:
    """How a check came out: `error` is the client's own traceback, empty where all was well."""

    error: str
    seconds: float


Results = Callable[[str], Mapping[str, Result]]


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if not environment().joinpath(".pins.sha256").exists():
        pytest.skip("no clients here; install them with: make clients")
    folder = tmp_path_factory.mktemp("clients")
    config = folder / "experts.yaml"
    with ExitStack() as stack:
        native, plain = stack.enter_context(fake_model()), stack.enter_context(fake_model("chat"))
        faulty = {group: stack.enter_context(fake_model()) for group in GROUPS}
        config.write_text(experts(native, plain, faulty), "utf-8")
        keys = {"MOE_GATEWAY_KEYS": f"clients:{KEY}"}
        gateway = stack.enter_context(
            serve("--config", str(config), "--state", str(folder / "state"), environment=keys)
        )
        yield Stage(gateway, native, plain, faulty)


def experts(native: FakeModel, plain: FakeModel, faulty: Mapping[str, FakeModel]) -> str:
    """The stage's experts.yaml: three experts to choose among, and others that clients name, a real engine among them."""
    able = "capabilities: [tools, json_schema, vision]"
    lines = [
        "version: 1",
        "router: {fallback: general}",
        "aliases: {gpt-4o-mini: auto, claude-sonnet: auto}",
        "experts:",
    ]
    served = [(name, domains, native.url) for name, domains in DOMAINS.items()]
    served += [("plain", NEVER, plain.url)]
    for group, model in faulty.items():
        # An expert that fails a few times is left alone for a while, so each broken stream is another expert's.
        names = [f"faulty-{group}", *(f"broken-{group}-{number}" for number in range(BROKEN))]
        served += [(name, NEVER, model.url) for name in names]
    for name, domains, url in served:
        lines += [f"  {name}:", f"    model: fake/{name}", f"    domains: {domains}", f"    {able}"]
        lines += [f"    upstream: {{vllm: [{url}]}}", "    context_window: 32768"]
    lines += ["  embedder:", "    model: fake/embedder", f"    domains: {NEVER}", "    endpoints: [embeddings]"]
    lines += [f"    upstream: {{vllm: [{native.url}]}}"]
    lines += [
        "  engine:",
        "    model: SmolLM2-135M-Instruct",
        f"    domains: {NEVER}",
        "    upstream: {embedded: smollm2}",
    ]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def results(stage: Stage) -> Iterator[Results]:
    """results(group) runs the group's clients, once; the groups run beside each other."""
    with ThreadPoolExecutor(len(GROUPS)) as pool:
        running: dict[str, Future[Mapping[str, Result]]] = {}

        def of(group: str) -> Mapping[str, Result]:
            for name in [group, *GROUPS]:
                if name not in running:
                    running[name] = pool.submit(played, stage, GROUPS[name])
            return running[group].result(LIMIT_SECONDS)

        yield of


def played(stage: Stage, group: Group) -> Mapping[str, Result]:
    """What the clients of a group report, a JSON line for each check. Whatever else they print is for whoever looks."""
    process = subprocess.run(
        group.command(),
        cwd=ROOT,
        # Compiled once, on the first run: these environments come without byte code.
        env={**os.environ, "MOE_CLIENTS": stage.told(group.name), "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    lines: list[dict[str, Any]] = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    assert lines, process.stdout + process.stderr
    return {line["check"]: Result(line["error"], line["seconds"]) for line in lines}
