"""Listing: the models and adapters that a server says it has, and how that differs from what experts.yaml says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec

from router.experts import Expert, ExpertsFile

SHOWN = 5  # names of a server's models, in a message
SHOWN_CHARACTERS = 80  # of each


class Card(msgspec.Struct, frozen=True):
    """One model. `root` is where its weights are; an adapter has a `parent`, and no `max_model_len` (in tokens) of its own."""

    id: str
    owned_by: str = ""
    root: str | None = None
    parent: str | None = None
    max_model_len: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _List(msgspec.Struct):
    data: list[Card]


@dataclass(frozen=True)
class Listing:
    """What GET /v1/models said, by name."""

    cards: Mapping[str, Card]

    @property
    def final(self) -> bool:
        """Whether the server answers for these alone. vLLM does; others go by another name too, or by none."""
        return bool(self.cards) and all(card.owned_by == "vllm" for card in self.cards.values())

    def window(self, model: str) -> int | None:
        """How many tokens fit, by the model's own word or its parent's."""
        card = self.cards.get(model)
        if card is not None and card.max_model_len is None and card.parent is not None:
            card = self.cards.get(card.parent)
        return card.max_model_len if card else None

    def same(self, model: str, other: str) -> bool:
        """Whether two names are those of one model."""
        a, b = self.cards.get(model), self.cards.get(other)
        return model == other or (a is not None and b is not None and a.root is not None and a.root == b.root)


def read_listing(body: bytes) -> Listing | None:
    """None where it is no list of models that can be read."""
    try:
        cards = msgspec.json.decode(body, type=_List).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Listing({card.id: card for card in cards})


def base_of(file: ExpertsFile, expert: str) -> str:
    """The model that an expert's worker was started with, whose adapter it may be."""
    return file.experts[file.experts[expert].upstream.worker or expert].model


def lacks(spec: Expert, listing: Listing) -> str | None:
    """What is not there of an expert's model or adapter, if so."""
    if spec.upstream_model in listing.cards:
        return None
    return f"{'adapter' if spec.upstream.adapter else 'model'} missing: {spec.upstream_model}"


def differences(spec: Expert, base: str, listing: Listing) -> Iterator[str]:
    """How what is there differs from what the file says of it."""
    model, adapter = spec.upstream_model, spec.upstream.adapter
    window = listing.window(model)
    if spec.context_window is not None and window is not None and spec.context_window > window:
        yield f"context window: {spec.context_window} in the file, {window} at its server"
    card = listing.cards.get(model)
    if adapter is None or card is None:
        return
    if card.parent is None:
        yield f"no adapter: {model} is a model of its own there"
    elif not listing.same(card.parent, base):
        yield f"adapter of another model: {model} belongs to {shown(card.parent)}, not to {base}"
    if adapter.path is not None and card.root is not None and card.root != adapter.path:
        yield f"adapter from another path: unload {model} there, or start the worker anew, and it is loaded from the file's"


def names(listing: Listing) -> str:
    """The first few, for a message."""
    first = ", ".join(shown(name) for name in list(listing.cards)[:SHOWN])
    more = len(listing.cards) - SHOWN
    return f"{first} and {more} more" if more > 0 else first or "nothing"


def shown(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """What a server wrote, fit for a log or a terminal."""
    text = "".join(c if c.isprintable() else "�" for c in text[: characters + 1])
    return text if len(text) <= characters else f"{text[:characters]}…"
