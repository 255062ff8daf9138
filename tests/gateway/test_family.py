"""Several processes come to serve by the same file, also where one of them begins or comes late meanwhile."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway import processes
from gateway.jsonlines import line, read
from gateway.messages import News, Ready, Serve, Served
from gateway.processes import Child, Family
from gateway.reloading.errors import ReloadError
from gateway.reloading.preparing import Candidate
from gateway.settings import Settings
from router.experts import ExpertsFile, load_experts
from tests.fakes.upstream import PATIENCE


class Process:
    """One that runs on, of which is known what it was told."""

    def __init__(self) -> None:
        self.returncode = None
        self.stdin = self
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.signals: list[int] = []

    def is_closing(self) -> bool:
        return False

    def write(self, line: bytes) -> None:
        self.lines.put_nowait(line)

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    async def wait(self) -> int:
        await asyncio.Event().wait()
        return 0


class Member(Child):
    """A child over such a process."""

    process: Any

    def __init__(self, number: int, ready: bool) -> None:
        super().__init__(number, Process())  # type: ignore[arg-type]
        if ready:
            self.ready.set()

    async def told(self) -> Serve:
        told: Any = read(await asyncio.wait_for(self.process.lines.get(), PATIENCE), News)
        assert isinstance(told, Serve)
        return told


def experts(tmp_path: Path, model: str) -> ExpertsFile:
    path = tmp_path / "experts.yaml"
    path.write_text(
        f"version: 1\nexperts: {{one: {{model: {model}, domains: [general], upstream: {{vllm: http://127.0.0.1:9}}}}}}\n"
    )
    return load_experts(path)


@pytest.fixture
def old(tmp_path: Path) -> ExpertsFile:
    return experts(tmp_path, "old")


@pytest.fixture
def new(tmp_path: Path) -> ExpertsFile:
    return experts(tmp_path, "new")


def family(tmp_path: Path, file: ExpertsFile, *children: Member) -> Family:
    made = Family(Settings(config=tmp_path / "experts.yaml", state=tmp_path), file, [], tmp_path, set())
    made._children.update({child.number: child for child in children})
    return made


async def test_one_that_becomes_ready_while_the_first_takes_a_file_up_is_told_of_it(
    tmp_path: Path, old: ExpertsFile, new: ExpertsFile
) -> None:
    first, late = Member(0, ready=True), Member(1, ready=False)
    serving = asyncio.create_task(family(tmp_path, old, first, late)._serve(Candidate(new, "a", tmp_path)))
    told = await first.told()
    late.ready.set()  # it began with the old file, which all serve by until now
    first.heard(Served(told.experts.digest))
    assert (await late.told()).experts.digest == new.digest
    late.heard(Served(new.digest))
    await asyncio.wait_for(serving, PATIENCE)


async def test_the_first_that_comes_to_no_end_is_replaced_and_its_late_answer_is_to_nothing_else(
    tmp_path: Path, old: ExpertsFile, new: ExpertsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Member(0, ready=True)
    made = family(tmp_path, old, child)
    monkeypatch.setattr(processes, "SERVE_SECONDS", 0.01)
    with pytest.raises(ReloadError, match="does not come to an end"):
        await made._serve(Candidate(new, "a", tmp_path))
    assert child.process.signals  # else it might serve by what was refused, and the others not
    await child.told()
    monkeypatch.setattr(processes, "SERVE_SECONDS", PATIENCE)
    serving = asyncio.create_task(child.serve(processes._told(Candidate(old, "a", tmp_path))))
    await child.told()
    child.heard(Served(new.digest))
    child.heard(Served(old.digest, ["no"]))
    assert await asyncio.wait_for(serving, PATIENCE) == ["no"]


async def test_a_file_that_the_first_refuses_costs_no_process(
    tmp_path: Path, old: ExpertsFile, new: ExpertsFile
) -> None:
    child = Member(0, ready=True)
    serving = asyncio.create_task(family(tmp_path, old, child)._serve(Candidate(new, "a", tmp_path)))
    child.heard(Served((await child.told()).experts.digest, ["no"]))
    with pytest.raises(ReloadError, match="no"):
        await asyncio.wait_for(serving, PATIENCE)
    assert not child.process.signals


async def test_what_a_process_says_at_once_may_be_long(
    tmp_path: Path, old: ExpertsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with many experts whose servers are not as the file says, each of which is told."""
    (tmp_path / "said").write_bytes(line(Ready("a", tmp_path, ["one is not as the file says"] * 10_000)))
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ncat {tmp_path / 'said'}\ncat > /dev/null\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(processes, "READY_SECONDS", PATIENCE)
    made = family(tmp_path, old)
    await made._launch(0)
    assert made._ready()
    made._children[0].process.kill()
    await made._children[0].process.wait()
