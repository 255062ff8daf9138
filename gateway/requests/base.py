"""What a request to a model is to the rest of the gateway, whatever endpoint it came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self

from gateway.errors import Shape
from gateway.events import StreamReader
from gateway.usage import Usage
from router.decision import NO_OVERRIDES, Overrides, Query
from router.experts import Expert


class Translator(Protocol):
    """Turns the stream of one dialect into that of another, event by event."""

    @property
    def failed(self) -> bool:
        """Whether an event could not be read; the client was told so."""

    def feed(self, event: bytes) -> bytes:
        """What the client gets for a complete event of the expert's; may be empty."""

    def end(self) -> bytes:
        """What the client gets when the expert's stream has come to its proper end."""


class Wire(Protocol):
    """How a request is put to one expert, and how what it answers is read."""

    @property
    def path(self) -> str:
        """Under the expert's address, such as /chat/completions; /../tokenize is beside its /v1."""

    @property
    def stream(self) -> bool: ...

    @property
    def hide_usage(self) -> bool:
        """Whether the stream's usage chunk is one that the client did not ask for."""

    def body(self, expert: Expert) -> bytes: ...

    def reader(self) -> StreamReader: ...

    def usage(self, content: bytes) -> Usage | None:
        """Of an answer in one piece."""

    def whole(self, content: bytes) -> bytes:
        """An answer in one piece, as the client is to get it. Raises ValueError where it cannot be read."""

    def translator(self) -> Translator | None:
        """None where the client gets the expert's own bytes."""


class Native:
    """The part of a Wire that is the same wherever the client gets the expert's own bytes."""

    def whole(self, content: bytes) -> bytes:
        return content

    def translator(self) -> None:
        return None


class ModelRequest(Protocol):
    """A request as it came."""

    endpoint: ClassVar[str]  # the label in metrics, such as chat.completions
    shape: ClassVar[Shape]  # how the client is told of errors
    names: ClassVar[Mapping[str, str]]  # what the fields of chat are called here, where they are called otherwise

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises BadRequestError saying what is wrong and where."""

    @property
    def wires(self) -> Mapping[str, Wire]:
        """By what an expert has to serve for it (a name in router.experts.ENDPOINTS), the best first."""

    @property
    def stream(self) -> bool: ...

    @property
    def interchangeable(self) -> bool:
        """Whether another model's answer will do: not where ids of tokens go in, or embeddings come out."""

    @property
    def continues_kept(self) -> bool:
        """Whether it goes on with what a server keeps, so that a 404 may be about the client's own id."""

    @property
    def affinity(self) -> bytes:
        """What brings the request back to the replica that knows its beginning; empty where nothing does."""

    def query(self, overrides: Overrides = NO_OVERRIDES) -> Query:
        """What the router is asked."""
