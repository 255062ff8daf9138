"""Upstreams: addresses and workers that will not do as they are written."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.checking.rule import Warned
from router.experts import ExpertsFile
from router.upstream import Launch

GPU_SHARE = 0.9  # of a GPU's memory, which vLLM takes where --gpu-memory-utilization does not say


def addresses(file: ExpertsFile) -> Iterator[Warned]:
    for name, expert in file.experts.items():
        seen: dict[str, int] = {}
        for i, replica in enumerate(expert.upstream.vllm):
            place = ("experts", name, "upstream", "vllm", i)
            parts = urlsplit(replica.url)
            if not parts.path.strip("/"):
                words = "no path: requests go to /chat/completions there; OpenAI's endpoints are under /v1: write …/v1"
                yield Warned("address-without-v1", place, words)
            if replica.url in seen:
                words = (
                    f"stands twice: it is the address of replica {seen[replica.url]} as well, and gets twice the load"
                )
                yield Warned("replica-twice", place, words)
            seen.setdefault(replica.url, i)
            if expert.upstream.api_key is not None and parts.scheme == "http" and _is_public(parts.hostname or ""):
                yield Warned("key-in-the-clear", place, "its api_key crosses the network unencrypted: write https://")


def _is_public(host: str) -> bool:
    """Whether a host is reached over networks of others, as far as its name tells."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".local", ".internal", ".lan", ".svc", ".home.arpa", ".localhost"))


def without_effect(file: ExpertsFile) -> Iterator[Warned]:
    """Settings that never come to anything beside the others."""
    for name, expert in file.experts.items():
        launch = (
            file.experts[expert.upstream.worker].upstream.launch if expert.upstream.worker else expert.upstream.launch
        )
        replicas = launch.replicas if launch else len(expert.upstream.vllm)
        if expert.hedge is not None and replicas < 2:
            words = "a second replica would be asked as well; there is only one"
            yield Warned("without-effect", ("experts", name, "hedge"), words)
        timeouts = expert.timeouts
        for bound in ("first_byte", "idle"):
            if bound in timeouts.model_fields_set and getattr(timeouts, bound) > timeouts.total:
                words = f"longer than total, which is {timeouts.total:g} s and ends every request before"
                yield Warned("without-effect", ("experts", name, "timeouts", bound), words)


def workers(file: ExpertsFile) -> Iterator[Warned]:
    for name, expert in file.experts.items():
        launcher = expert.upstream.worker or name
        launch = file.experts[launcher].upstream.launch
        if launch is not None and "tools" in expert.able and not launch.has("tool-call-parser"):
            words = "its worker refuses them without --enable-auto-tool-choice --tool-call-parser NAME in args"
            yield Warned("tools-without-parser", ("experts", name, "capabilities"), words)
    yield from _crowded(file)


def _crowded(file: ExpertsFile) -> Iterator[Warned]:
    """GPUs on which more is awake at once than their memory holds. Those that take turns are not."""
    taken: dict[int, list[tuple[str, float]]] = defaultdict(list)
    for name, expert in file.experts.items():
        launch = expert.upstream.launch
        if launch is None:
            continue
        for replica in range(launch.replicas):
            for gpu in launch.gpus_of(replica):
                taken[gpu].append((name, _share(launch)))
    told: set[str] = set()
    for gpu, shares in taken.items():
        awake = _awake(file, shares)
        last = shares[-1][0]
        if awake > 1 and last not in told:
            told.add(last)
            others = ", ".join(dict.fromkeys(name for name, _ in shares if name != last)) or "its own replicas"
            words = (
                f"shares GPU {gpu} with {others}, and together they want {awake:.0%} of its memory: give them sleep_after to take "
                "turns, or each a smaller --gpu-memory-utilization"
            )
            yield Warned("gpu-crowded", ("experts", last, "upstream", "launch", "gpus"), words)


def _awake(file: ExpertsFile, shares: list[tuple[str, float]]) -> float:
    """The most of one GPU's memory that is wanted at once: by all that never sleep, and the largest of those that do."""
    by_expert: dict[str, float] = defaultdict(float)
    for name, share in shares:
        by_expert[name] += share
    sleeps = [by_expert[name] for name in by_expert if file.experts[name].sleep_after is not None]
    return sum(by_expert.values()) - sum(sleeps) + max(sleeps, default=0.0)


def _share(launch: Launch) -> float:
    try:
        return float(launch.value("gpu-memory-utilization") or GPU_SHARE)
    except ValueError:
        return GPU_SHARE
