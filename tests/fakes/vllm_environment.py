"""An environment with a fake vLLM in it, what is described for it in experts.yaml, and what of it is still alive."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from gateway.workers.launching import CREW_VARIABLE

PATIENCE = 30.0  # seconds for what comes soon, on whatever machine


def make_environment(folder: Path) -> Path:
    """A folder whose bin/vllm is the program of tests/fakes/vllm.py."""
    program = folder / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable} -IS\n" + Path(__file__).with_name("vllm.py").read_text())
    program.chmod(0o755)
    return folder


def launches(orders: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An upstream that launches a vLLM which follows `orders`; `more` is said in launch."""
    env = {"FAKE_VLLM": json.dumps(orders or {}), **more.pop("env", {})}
    return {"launch": {"env": env, **more}}


def write_experts(path: Path, experts: Mapping[str, Mapping[str, Any]]) -> Path:
    """experts.yaml with these, by id: each an expert's keys, of which `upstream` alone is needed."""
    whole = {name: {"model": f"model-{name}", "domains": ["general"], **keys} for name, keys in experts.items()}
    path.write_text(json.dumps({"version": 1, "experts": whole}))
    return path


def notes(record: Path, name: str) -> list[Any]:
    """What the fake noted down, without a line that it is still writing."""
    file = record / name
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def alive(state: Path) -> list[psutil.Process]:
    """Every process that is a keeper of this state folder's workers, a worker, or anything below or left by one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(CREW_VARIABLE) == str(state):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def none_alive(state: Path, seconds: float = PATIENCE) -> bool:
    return soon(lambda: not alive(state), seconds)


def named(processes: list[psutil.Process], word: str) -> list[psutil.Process]:
    """Those whose command line has a word that ends so."""
    return [process for process in processes if any(part.endswith(word) for part in words(process))]


def words(process: psutil.Process) -> list[str]:
    """Its command line; empty where it is gone."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def soon(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Whether it comes to be."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.03)
    return True
