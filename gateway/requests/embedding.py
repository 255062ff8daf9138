"""POST /v1/embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import msgspec

from gateway.errors import OPENAI, BadRequestError, Shape
from gateway.events import ChunkReader, StreamReader
from gateway.requests.base import Native, Wire
from gateway.requests.fields import Raw, decode, encoded, fields_of
from gateway.usage import Usage, read_usage
from router.decision import NO_OVERRIDES, Overrides, Query
from router.errors import MessagesError
from router.experts import Expert
from router.messages import absent


class EmbeddingFields(msgspec.Struct):
    model: str = "auto"


class Embedding(Native):
    """An embeddings request: texts, or the ids of their tokens. It is its own Wire, and is never streamed."""

    endpoint: ClassVar[str] = "embeddings"
    path = "/embeddings"
    shape: ClassVar[Shape] = OPENAI
    names: ClassVar[Mapping[str, str]] = {"messages": "input"}
    continues_kept = False
    interchangeable = False  # two models' embeddings cannot be compared
    stream = False
    hide_usage = False
    affinity = b""

    def __init__(self, fields: EmbeddingFields, raw: Mapping[str, Raw]) -> None:
        self.fields, self._raw = fields, raw

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises BadRequestError saying what is wrong and where."""
        fields: EmbeddingFields = decode(body, _FIELDS)
        try:
            raw = fields_of(body)
        except MessagesError as error:
            raise BadRequestError(str(error), param=error.param) from None
        if absent(raw.get("input")) and absent(raw.get("messages")):
            raise BadRequestError("input is missing; send the text to embed.", param="input")
        return cls(fields, raw)

    @property
    def wires(self) -> Mapping[str, Wire]:
        return {"embeddings": self}

    def query(self, overrides: Overrides = NO_OVERRIDES) -> Query:
        """Many texts may come at once, each bounded by itself: their size says nothing of the context window."""
        return Query("", requested_model=self.fields.model, overrides=overrides)

    def body(self, expert: Expert) -> bytes:
        return msgspec.json.encode({**self._raw, "model": encoded(expert.upstream_model)})

    def reader(self) -> StreamReader:
        return ChunkReader()

    def usage(self, content: bytes) -> Usage | None:
        return read_usage(content)


_FIELDS = msgspec.json.Decoder(EmbeddingFields)
