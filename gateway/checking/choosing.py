"""Choosing: experts between which the router has nothing to choose, or which it will never choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf

from gateway.checking.rule import Warned
from router.experts import Expert, ExpertsFile

SURE = 0.95  # a confidence that hardly a prompt reaches


def equal_experts(file: ExpertsFile) -> Iterator[Warned]:
    """Two that are equal in all that routing looks at."""
    first: dict[object, str] = {}
    qualities = _qualities(file)
    for name, expert in file.experts.items():
        like = (qualities[name], _price(expert), _abilities(expert))
        other = first.setdefault(like, name)
        if other != name:
            same = expert.model == file.experts[other].model
            mend = "make them replicas of one expert" if same else "set what their domains or prices really are"
            words = f"equal to {other} in domains, price, context window, capabilities and languages: chance decides; {mend}"
            yield Warned("equal-experts", ("experts", name), words, at_key=True)


def never_chosen(file: ExpertsFile) -> Iterator[Warned]:
    """One that another beats in every domain, can do no more than that one and costs no less, and that nothing else leads to."""
    named = {file.fallback, *file.aliases.values(), *(f for expert in file.experts.values() for f in expert.fallbacks)}
    qualities = _qualities(file)
    for name in file.experts:
        if name in named:
            continue
        others = (other for other in file.experts if other != name)
        better = next((other for other in others if _beats(file, qualities, other, name)), None)
        if better is not None:
            words = f"{better} is expected to be as good or better in every domain and costs no more: auto never chooses {name}"
            yield Warned("never-chosen", ("experts", name), words, at_key=True)


def _beats(file: ExpertsFile, qualities: Mapping[str, Sequence[float]], other: str, name: str) -> bool:
    mine, theirs = qualities[name], qualities[other]
    expert, rival = file.experts[name], file.experts[other]
    if any(a > b for a, b in zip(mine, theirs, strict=True)) or _price(rival) > _price(expert):
        return False
    if rival.languages or expert.languages:  # a specialist of a language is preferred for it
        return False
    able = rival.able >= expert.able and _window(rival) >= _window(expert) and _serves(rival) >= _serves(expert)
    return able and (mine != theirs or _price(rival) < _price(expert))


def _qualities(file: ExpertsFile) -> dict[str, tuple[float, ...]]:
    """Of each expert, in the order of the file's domains."""
    domains = file.domain_names
    return {name: tuple(file.quality(name, domain) for domain in domains) for name in file.experts}


def _price(expert: Expert) -> float:
    return inf if expert.blended is None else expert.blended  # as policies count it


def _window(expert: Expert) -> float:
    return inf if expert.context_window is None else expert.context_window


def _serves(expert: Expert) -> frozenset[str]:
    return expert.endpoints or frozenset()


def _abilities(expert: Expert) -> object:
    return expert.able, expert.context_window, expert.languages, expert.endpoints


def floor_too_high(file: ExpertsFile) -> Iterator[Warned]:
    floor = file.router.confidence_floor
    if floor > SURE and len(file.experts) > 1:
        words = f"the router is hardly ever {floor:.0%} sure: almost everything goes to {file.fallback}"
        yield Warned("floor-too-high", ("router", "confidence_floor"), words)


def alias_hides(file: ExpertsFile) -> Iterator[Warned]:
    """An alias by which a client gets another expert than the name says. One that means a policy is what aliases are for."""
    for alias, target in file.aliases.items():
        models = (
            {file.experts[target].model, file.experts[target].upstream_model} if target in file.experts else {alias}
        )
        for name, expert in file.experts.items():
            if alias in (expert.model, expert.upstream_model) and alias not in models:
                words = f"hides the model of {name}: who asks for it by that name is answered by {target}"
                yield Warned("alias-hides", ("aliases", alias), words, at_key=True)
            elif alias.lower() == name.lower() and target != name:
                words = f"differs from the expert {name} in capital letters alone, and means {target}"
                yield Warned("alias-hides", ("aliases", alias), words, at_key=True)


def stand_in(file: ExpertsFile) -> Iterator[Warned]:
    """The small embedded model beside real ones. A file of stand-ins alone is there to try the gateway."""
    if all(expert.stand_in for expert in file.experts.values()):
        return
    for name, expert in file.experts.items():
        if expert.stand_in:
            words = "a small stand-in beside real models: it answers real requests, badly; give it a real upstream or remove it"
            yield Warned("stand-in", ("experts", name, "upstream"), words)
