"""Fallbacks: who answers in place of an expert that is down, where that is nobody, or somebody who cannot."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.checking.rule import Warned
from router.experts import ExpertsFile

# What a request may ask for, and what an expert has to be able to do then.
NEEDED = ("tools", "json_schema", "vision", "audio")


def no_fallback(file: ExpertsFile) -> Iterator[Warned]:
    """An expert that is asked for by name has its own fallbacks alone; one that was routed to has whoever else is able."""
    if len(file.experts) == 1:
        (name,) = file.experts
        yield Warned(
            "no-fallback", ("experts", name), "it is the only expert: while it is down nobody answers", at_key=True
        )
        return
    for name, expert in file.experts.items():
        if not expert.fallbacks and name != file.fallback:
            words = f"no fallbacks: a request for {name} by name fails while it is down; give it fallbacks: [{file.fallback}]"
            yield Warned("no-fallback", ("experts", name), words, at_key=True)


def fallback_circle(file: ExpertsFile) -> Iterator[Warned]:
    """Experts whose fallbacks are each other alone. One with the file's fallback in it ends where everything else does."""
    told: set[str] = set()
    for name in file.experts:
        circle = _reached(file, name)
        if name in told or name not in circle or file.fallback in circle:
            continue
        told |= circle
        members = ", ".join(member for member in file.experts if member in circle)
        words = f"fallbacks go round among {members}: while these are down, a request for one of them by name is answered by nobody"
        yield Warned("fallback-circle", ("experts", name, "fallbacks"), f"{words}; add {file.fallback}")


def _reached(file: ExpertsFile, name: str) -> set[str]:
    """All that the fallbacks of an expert lead to, itself where they lead back."""
    found: set[str] = set()
    ahead = list(file.experts[name].fallbacks)
    while ahead:
        if (step := ahead.pop()) not in found:
            found.add(step)
            ahead += file.experts[step].fallbacks
    return found


def fallback_weaker(file: ExpertsFile) -> Iterator[Warned]:
    """An expert none of whose fallbacks can do what it can."""
    for name, expert in file.experts.items():
        others = [file.experts[other] for other in expert.fallbacks]
        lost = [need for need in NEEDED if need in expert.able and not any(need in other.able for other in others)]
        if others and lost:
            words = (
                f"none of its fallbacks has {' or '.join(lost)}: requests by name that need it fail while it is down"
            )
            yield Warned("fallback-weaker", ("experts", name, "fallbacks"), words)


def fallback_beside_it(file: ExpertsFile) -> Iterator[Warned]:
    """Fallbacks on the very servers of the expert, as adapters are, though there are experts elsewhere."""
    servers = {name: _servers(file, name) for name in file.experts}
    for name, expert in file.experts.items():
        own = servers[name]
        elsewhere = [other for other in file.experts if not servers[other] <= own]
        if expert.fallbacks and elsewhere and all(servers[other] <= own for other in expert.fallbacks):
            words = f"its fallbacks are on its own servers, and down with it; add one from elsewhere, such as {elsewhere[0]}"
            yield Warned("fallback-beside-it", ("experts", name, "fallbacks"), words)


def _servers(file: ExpertsFile, name: str) -> set[str]:
    """Of an expert: addresses, or the expert whose workers answer. Models of a provider fail one by one."""
    upstream = file.experts[name].upstream
    return {replica.url for replica in upstream.vllm} or {upstream.worker or name}
