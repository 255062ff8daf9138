"""Example prompts for a new domain: of the router's own corpus those that are nearest to what the domain is called."""

from __future__ import annotations

from router.dataset import load_corpus
from router.explaining.neighbours import Neighbour, Neighbours
from router.routing import Router

COUNT = 15
LOOKED_AT = 300  # the nearest, from which they are taken
OTHER_LANGUAGES = 4  # of the proposed, each of another language


def propose(router: Router, words: str, count: int = COUNT) -> list[str]:
    """Prompts that are about `words`, a name and a description, the nearest first: to be looked at, since near is not always about.

    Takes a few seconds. Raises RouterError where the router's training vectors are missing.
    """
    encoder = router.artifact.stages[-1].encoder
    known = Neighbours(router.artifact.vectors, load_corpus)
    near = known.nearest(encoder.name, encoder.encode([words])[0], LOOKED_AT)
    others: dict[str, Neighbour] = {}
    for one in near:
        if one.language != "en":
            others.setdefault(one.language, one)
    chosen = [*list(others.values())[:OTHER_LANGUAGES]]
    chosen += [one for one in near if one.language == "en"][: count - len(chosen)]
    return [one.text for one in sorted(chosen, key=lambda one: -one.similarity)]
