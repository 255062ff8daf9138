"""One prompt put to one expert: straight to its server, or through a running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.comparing.answers import Answer, Sampling
from gateway.comparing.asking import Asker
from gateway.comparing.prompts import Prompt
from gateway.console import err, fail, out
from gateway.listing import shown
from gateway.pool import Pool
from gateway.requests.chat import Chat
from gateway.upstreams.adapters import adapters_for
from gateway.upstreams.base import Address
from gateway.upstreams.openai import OpenAIUpstream
from gateway.upstreams.sending import plain
from gateway.workers import embedded
from gateway.workers.link import Link, launches
from gateway.workers.supervisor import embedded_worker
from router.experts import ExpertsFile

Hear = Callable[[str, bool], None]


@dataclass(frozen=True)
class Question:
    """`seconds` is all the time that the answer has."""

    text: str
    sampling: Sampling
    seconds: float


async def straight(file: ExpertsFile, name: str, state: Path, question: Question, hear: Hear) -> Answer:
    """As the gateway asks it, the expert's defaults with it, at the first of its replicas. A stand-in is started for it."""
    expert = file.experts[name]
    answer = Answer(key="", prompt="", target=name, expert=name, model=expert.upstream_model)
    fields = {"model": name, "messages": [{"role": "user", "content": question.text}], "stream": True}
    body = Chat.parse(msgspec.json.encode({**fields, **_said(question.sampling)})).body(expert)
    async with _address(file, name, state) as address, AsyncExitStack() as stack:
        upstream = adapters_for(file)
        await upstream.start()
        stack.push_async_callback(upstream.close)
        await Asker(upstream, address, file.experts, question.sampling, question.seconds, hear).put(answer, body)
        answer.error = plain(answer.error, address)
    return answer


async def through(gateway: Address, file: ExpertsFile, name: str, question: Question, hear: Hear) -> Answer:
    """As an application asks it; `name` may be any model that the gateway knows."""
    upstream = OpenAIUpstream()
    await upstream.start()
    try:
        asker = Asker(upstream, gateway, file.experts, question.sampling, question.seconds, hear)
        answer = await asker.ask(Prompt("", ({"role": "user", "content": question.text},)), name)
        answer.error = plain(answer.error, gateway)
        return answer
    finally:
        await upstream.close()


@asynccontextmanager
async def _address(file: ExpertsFile, name: str, state: Path) -> AsyncIterator[Address]:
    """Leaves with status 1 where nobody runs the expert's worker, or a stand-in is not installed."""
    expert = file.experts[name]
    async with AsyncExitStack() as stack:
        known: dict[str, Address] = {}
        if expert.upstream.embedded:
            if lacking := embedded.missing():
                fail(lacking)
            worker = embedded_worker(state)
            await worker.start()
            stack.push_async_callback(worker.stop)
            known[expert.upstream.embedded] = worker
        elif launches(file):
            link = Link(state)
            stack.push_async_callback(link.close)
            known.update(link.addresses(file))
            await link.start()
        replica = Pool(_alone(file, name), known).replicas[name][0]
        if replica.address.url is None and not (expert.upstream.litellm or expert.upstream.custom):
            fail(f"nobody runs the worker of {name}: start moe-gateway workers up, or serve --with-workers")
        yield replica.address


def _alone(file: ExpertsFile, name: str) -> ExpertsFile:
    """The file with this expert, and the one whose worker it is on."""
    kept = {name, file.experts[name].upstream.worker}
    return file.model_copy(update={"experts": {key: e for key, e in file.experts.items() if key in kept}})


def _said(sampling: Sampling) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(sampling).items() if value is not None}


def described(answer: Answer) -> Mapping[str, Any]:
    """As JSON has it."""
    told = msgspec.structs.asdict(answer)
    return {key: value for key, value in told.items() if key not in ("key", "prompt", "grade", "why")} | {
        "ok": not answer.error
    }


def heard(text: str, thought: bool) -> None:
    """Show a piece of an answer at once."""
    from rich.text import Text

    text = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)
    out.print(Text(text, "dim" if thought else ""), end="", soft_wrap=True, highlight=False)
    out.file.flush()


def show(answer: Answer) -> None:
    """The figures of an answer that was shown already."""
    if answer.text or answer.reasoning:
        out.print()
    if answer.error:
        err.print(f"error: {answer.target}: {answer.error}", style="red", markup=False, highlight=False, soft_wrap=True)
    told = {
        "expert": f"{answer.expert} ({answer.model})" if answer.expert else None,
        "why": f"{answer.domain}, {answer.reason}" if answer.reason else None,
        "first token": _figure(answer.first_token, "{:.3f} s"),
        "total": _figure(answer.seconds or None, "{:.3f} s"),
        "pace": _figure(answer.tokens_per_second, "{:.1f} tokens/s"),
        "tokens": None if answer.output_tokens is None else f"{answer.input_tokens} in, {answer.output_tokens} out",
        "cost": _figure(answer.cost_usd, "{:.6f} USD")
        or (None if answer.error else "not known: it has no token price"),
        "ended": answer.finish or None,
    }
    out.print()
    for name, value in told.items():
        if value is not None:
            out.print(f"{name:<12} {shown(value)}", highlight=False, markup=False, soft_wrap=True)


def _figure(value: float | None, shape: str) -> str | None:
    return None if value is None else shape.format(value)


def run(asked: Any) -> Answer:
    """Leaves with status 1 where it is stopped by hand."""
    try:
        answer: Answer = asyncio.run(asked)
    except KeyboardInterrupt:
        fail("stopped")
    return answer
