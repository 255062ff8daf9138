"""Examples: the prompts that a domain of one's own is learnt from, where they are too few or too like another domain's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.checking.rule import Warned
from router.experts import BUILT_IN_DOMAINS, ExpertsFile

if TYPE_CHECKING:
    from router.encoder import Encoder

ENOUGH = 10  # examples; with fewer a detector's own check has next to nothing to go by
MOST = 32  # examples of a domain that are compared, evenly from all of it: some 10 ms each
MOST_TOGETHER = 320
# Two domains whose examples lie among each other: so large a part of both is nearer to the other's middle than to its own, and
# the middles are so near, against how near examples are to their own. tests/benchmarks/confusable_domains.py measures both: of 600
# draws of ten, none of two different domains is told, and 582 of one that was cut in two.
NEARER = 0.25
CLOSENESS = 0.85
SAME = 0.97  # cosine of two examples that say the same
SHOWN = 3
SHOWN_CHARACTERS = 60


class Likeness(NamedTuple):
    """Of the examples of two domains. `nearer` is the share that is nearer to the other's, `closeness` how near the domains are to
    each other against how near their examples are to their own, `pairs` the most alike: cosine, place in the one, in the other."""

    nearer: float
    closeness: float
    pairs: Sequence[tuple[float, int, int]]


def few_examples(file: ExpertsFile) -> Iterator[Warned]:
    for name, domain in file.domains.items():
        if name not in BUILT_IN_DOMAINS and len(domain.examples) < ENOUGH:
            words = f"{len(domain.examples)} examples are few: a domain is found far more surely from {ENOUGH} to 50"
            yield Warned("few-examples", ("domains", name, "examples"), words)


def example_twice(file: ExpertsFile) -> Iterator[Warned]:
    """The same prompt twice: in one domain it teaches nothing more, in two it teaches what is wrong of both."""
    seen: dict[str, str] = {}
    for name, domain in file.domains.items():
        for i, example in enumerate(domain.examples):
            prompt = " ".join(example.lower().split())
            if prompt in seen:
                where = "twice" if seen[prompt] == name else f"in the domain {seen[prompt]} as well"
                yield Warned("example-twice", ("domains", name, "examples", i), f"stands {where}: {_clipped(example)}")
            seen.setdefault(prompt, name)


def confusable_examples(file: ExpertsFile) -> Iterator[Warned]:
    """Domains of one's own whose examples lie among each other, with the examples that are most alike.

    Built-in domains are not compared: one of one's own may well lie within one of them, as SQL does in code.
    """
    names = [name for name in file.domains if name not in BUILT_IN_DOMAINS][: MOST_TOGETHER // 2]
    own = {name: file.domains[name].examples for name in names}
    if len(own) < 2:
        return
    most = min(MOST, MOST_TOGETHER // len(own))
    chosen = {name: _evenly(len(examples), most) for name, examples in own.items()}
    encoder = _encoder(file)
    if encoder is None:
        return
    vectors = {name: encoder.encode([own[name][i] for i in places]) for name, places in chosen.items()}
    for one, other in combinations(own, 2):
        if min(len(chosen[one]), len(chosen[other])) < 2:
            continue
        likeness = likeness_of(vectors[one], vectors[other])
        alike = are_alike(likeness)
        pairs = likeness.pairs if alike else [pair for pair in likeness.pairs if pair[0] >= SAME]
        told = [(cosine, own[one][chosen[one][i]], own[other][chosen[other][j]]) for cosine, i, j in pairs]
        if alike:
            words = (
                f"are hard to tell from those of {one}: {likeness.nearer:.0%} of both are nearer to the other domain's"
            )
        elif told:
            words = f"say the same as some of {one}"
        else:
            continue
        yield Warned(
            "confusable-examples", ("domains", other, "examples"), f"{words}. Most alike: {_listed(told, one, other)}"
        )


def are_alike(likeness: Likeness) -> bool:
    """Whether the two domains would be taken for each other."""
    return likeness.nearer >= NEARER and likeness.closeness >= CLOSENESS


def likeness_of(one: NDArray[np.float32], other: NDArray[np.float32]) -> Likeness:
    """Of vectors of length 1, (rows, dimensions) each, two rows or more."""
    own_one, at_other = _nearness(one, other)
    own_other, at_one = _nearness(other, one)
    nearer = np.concatenate([at_other > own_one, at_one > own_other]).mean()
    own, across = own_one.mean() + own_other.mean(), at_other.mean() + at_one.mean()
    cosines = one @ other.T
    order = np.argsort(-cosines, axis=None)[:SHOWN]
    pairs = [(float(cosines.flat[k]), *map(int, divmod(int(k), len(other)))) for k in order]
    return Likeness(float(nearer), float(across / max(own, 1e-9)), pairs)  # type: ignore[arg-type]


def _nearness(own: NDArray[np.float32], other: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How near each row is to the middle of the other rows of its own, and of the others: cosines, shape (rows,)."""
    rest = own.sum(axis=0) - own
    rest /= np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-9)
    middle = other.sum(axis=0)
    return (own * rest).sum(axis=1), own @ (middle / max(float(np.linalg.norm(middle)), 1e-9))


def _encoder(file: ExpertsFile) -> Encoder | None:
    """The file's own where this package ships it, else the one that it ships; None where that is damaged, as the router says."""
    from router.artifact import PACKAGED, whole_encoder

    folder = whole_encoder(PACKAGED, file.router.encoder) or whole_encoder(PACKAGED, "moe-minilm")
    return None if folder is None else _loaded(folder)


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> Encoder:
    """Some tenths of a second."""
    from router.encoder import TransformerEncoder

    return TransformerEncoder(folder)


def _evenly(count: int, most: int) -> list[int]:
    """At most so many places of `count`, evenly from all of them."""
    return [int(i) for i in np.linspace(0, count - 1, min(count, most)).round()]


def _listed(told: Sequence[tuple[float, str, str]], one: str, other: str) -> str:
    return "; ".join(f"{cosine:.2f} {_clipped(b)} and {_clipped(a)} of {one}" for cosine, a, b in told)


def _clipped(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS].rstrip()}…")
