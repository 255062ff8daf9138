"""A classifier that needs no model, for routers whose texts are not all its own."""

from __future__ import annotations

from collections.abc import Sequence

from router.decision import Scores
from router.experts import ExpertsFile
from router.routing import Router
from tests.fakes.encoders import spoken_artifact

SURE = 0.99


class Worded:
    """Sure of the first domain that a text has as a word, in just these letters; of no domain where there is none.

    A text with a question mark takes the second stage.
    """

    def __init__(self, domains: Sequence[str]) -> None:
        self.domains = tuple(domains)
        self.seen: list[str] = []

    def quick(self, text: str) -> Scores | None:
        return None if "?" in text else self._scores(text, "static")

    def score_many(self, texts: Sequence[str]) -> list[Scores]:
        self.seen += texts
        return [self.quick(text) or self._scores(text, "transformer") for text in texts]

    def _scores(self, text: str, stage: str) -> Scores:
        said = next((word for word in text.replace("?", " ").split() if word in self.domains), None)
        rest = (1 - SURE) / (len(self.domains) - 1)
        chances = {d: (SURE if d == said else rest) if said else 1 / len(self.domains) for d in self.domains}
        return Scores(chances, "static" if stage == "static" else "transformer")


def worded_router(file: ExpertsFile) -> Router:
    return Router(file, spoken_artifact(file.domain_names), Worded(file.domain_names))
