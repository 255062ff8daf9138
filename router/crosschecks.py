"""Cross checks: what parts of an experts.yaml say of one another: fallbacks, aliases, domains, and parts that packages add."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router.errors import Problem
from router.extensions import added
from router.layers import Layers
from router.upstream import UPSTREAM_GROUP
from router.validation import nearest
from router.vocabulary import (
    ADDED_PREFIX,
    BUILT_IN_DOMAINS,
    LEAST_EXAMPLES,
    PARTS,
    POLICY_GROUP,
    RESERVED_IDS,
    VIRTUAL_MODELS,
)


def cross_checks(file: Layers, aliases: Mapping[str, str], examples: Mapping[str, Sequence[str]]) -> list[Problem]:
    """`aliases` and the domains' `examples` are those that are right by themselves; all else is looked for in the raw data, where
    what is wrong inside an entry hides nothing of what refers to it."""
    ids, declared = list(_section(file, "experts")), list(_section(file, "domains"))
    return [
        *_check_names(file, ids, aliases),
        *_check_references(file, ids),
        *_check_parts(file),
        *_check_domains(file, declared, examples),
    ]


def _section(file: Layers, name: str) -> dict[str, Any]:
    """The raw entries of a section."""
    entries = file.data.get(name)
    return entries if isinstance(entries, dict) else {}


def _named(entry: Any, key: str) -> list[str]:
    """The names in a list, or the keys of a mapping, at `key` of a raw entry."""
    names = entry.get(key) if isinstance(entry, dict) else None
    return [str(name) for name in names] if isinstance(names, list | dict) else []


def _check_names(file: Layers, ids: Sequence[str], aliases: Mapping[str, str]) -> Iterator[Problem]:
    for key in ids:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", key) or key in (*VIRTUAL_MODELS, *RESERVED_IDS):
            rule = "an expert's id is 1 to 64 letters, digits, '.', '_' or '-', and not auto or none"
            yield file.problem(("experts", key), rule, at_key=True)
    targets = [*ids, *VIRTUAL_MODELS]
    if any(name.startswith(ADDED_PREFIX) for name in (*aliases, *aliases.values())):  # else nobody looks for packages
        targets += [name for name in added(POLICY_GROUP, ADDED_PREFIX) if name not in VIRTUAL_MODELS]
    for alias, target in aliases.items():
        if alias in targets:
            yield file.problem(("aliases", alias), "is the name of an expert or virtual model already", at_key=True)
        if target not in targets:
            what = "policy" if target.startswith(ADDED_PREFIX) else "expert"
            yield file.problem(("aliases", alias), f"no {what} {target!r}{nearest(target, targets)}")


def _check_references(file: Layers, ids: Sequence[str]) -> Iterator[Problem]:
    for key, expert in _section(file, "experts").items():
        for i, fallback in enumerate(_named(expert, "fallbacks")):
            place = ("experts", key, "fallbacks", i)
            if fallback not in ids:
                yield file.problem(place, f"no expert {fallback!r}{nearest(fallback, ids)}")
            elif fallback == key:
                yield file.problem(place, "an expert cannot be its own fallback")
        yield from _check_worker(file, key, ids)
        yield from _check_custom(file, key)
    last = _section(file, "router").get("fallback")
    if isinstance(last, str) and last not in ids:
        yield file.problem(("router", "fallback"), f"no expert {last!r}{nearest(last, ids)}")


def _check_worker(file: Layers, key: str, ids: Sequence[str]) -> Iterator[Problem]:
    upstream = _section(file, "experts")[key]
    upstream = upstream.get("upstream") if isinstance(upstream, dict) else None
    worker = upstream.get("worker") if isinstance(upstream, dict) else None
    if not isinstance(worker, str):
        return
    other = _section(file, "experts").get(worker)
    launches = isinstance(other, dict) and isinstance(other.get("upstream"), dict) and "launch" in other["upstream"]
    if worker not in ids:
        yield file.problem(("experts", key, "upstream", "worker"), f"no expert {worker!r}{nearest(worker, ids)}")
    elif not launches:
        yield file.problem(("experts", key, "upstream", "worker"), f"{worker} launches no worker: it has no launch")


def _check_custom(file: Layers, key: str) -> Iterator[Problem]:
    upstream = _section(file, "experts")[key]
    upstream = upstream.get("upstream") if isinstance(upstream, dict) else None
    name = upstream.get("custom") if isinstance(upstream, dict) else None
    if isinstance(name, str) and name not in (names := [*added(UPSTREAM_GROUP)]):
        hint = nearest(name, names) if names else "; install the package that adds it"
        yield file.problem(("experts", key, "upstream", "custom"), f"no upstream {name!r} is installed{hint}")


def _check_parts(file: Layers) -> Iterator[Problem]:
    options = _section(file, "router")
    for key, part in (("encoder", "encoder"), ("static", "encoder"), ("head", "head"), ("calibrator", "calibrator")):
        name, (group, known) = options.get(key), PARTS[part]
        if not isinstance(name, str) or name in known or (key, name) == ("static", ""):
            continue
        if part == "encoder" and "/" in name:
            continue  # only the hub knows, or the folder
        names = [*known, *added(group)]
        if name not in names:
            yield file.problem(("router", key), f"no {part} {name!r}{nearest(name, names)}")


def _check_domains(file: Layers, declared: Sequence[str], examples: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    known = [*BUILT_IN_DOMAINS, *(d for d in declared if d not in BUILT_IN_DOMAINS)]
    served = set()
    for key, expert in _section(file, "experts").items():
        listed = isinstance(expert, dict) and isinstance(expert.get("domains"), list)
        for i, domain in enumerate(_named(expert, "domains")):
            served.add(domain)
            if domain not in known:
                place = ("experts", key, "domains", i if listed else domain)
                yield file.problem(place, f"no domain {domain!r} is declared{nearest(domain, known)}", at_key=True)
    for name in declared:
        if name not in served:
            yield file.problem(("domains", name), "no expert serves this domain", at_key=True)
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", name) or name in RESERVED_IDS:
            yield file.problem(("domains", name), "a domain's name is 1 to 32 of a-z, 0-9, '_' and '-'", at_key=True)
    for name, prompts in examples.items():
        if name not in BUILT_IN_DOMAINS and len(prompts) < LEAST_EXAMPLES:
            message = f"a domain of one's own needs {LEAST_EXAMPLES} example prompts or more, better 10 to 50"
            yield file.problem(("domains", name), message, at_key=True)
