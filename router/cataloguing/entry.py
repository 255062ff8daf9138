"""Model: one entry of the catalogue, as catalog.yaml has it. What could not be checked is None or empty, never guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from router.cataloguing.memory import Memory, Shape, memory_of
from router.cataloguing.words import PRECISIONS, Kind, Precision, Task
from router.prices import Price
from router.upstream import Part

SHORT_CONTEXT = 8192  # tokens: what memory is told for beside the whole context
Answer = Literal["yes", "partly", "no"]
Openness = Literal["full", "partial", "weights"]
OPENNESS: tuple[Openness, ...] = get_args(Openness)  # from the most open to the least
CRITERIA = ("training_data", "weights", "evaluation_code", "finetuning_code", "training_metrics")


def _source(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" or not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", parts.netloc):
        raise ValueError("not the https:// address of a public page")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ValueError("an address holds no spaces and no characters beyond ASCII")
    return value


def _month(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", value):
        return value
    raise ValueError('not a month; write "2024-09"')


def _line(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("has a line break, a control character or a space at an end")
    return value


Source = Annotated[str, AfterValidator(_source)]
Month = Annotated[str, BeforeValidator(_month)]
Text = Annotated[str, AfterValidator(_line)]
Name = Annotated[str, Field(min_length=1, max_length=120), AfterValidator(_line)]
HubId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]
Billions = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, le=100_000_000, strict=True)]


class Parameters(Part):
    """In billions; `active` are those that one token passes through."""

    total: Billions
    active: Billions | None = None


class Architecture(Part):
    """`name` is vLLM's class. `latent` are the values that multi-head latent attention keeps of a token and layer."""

    name: Annotated[str, Field(alias="class")]
    layers: Count | None = None
    hidden: Count | None = None
    heads: Count | None = None
    kv_heads: Count | None = None
    head_dim: Count | None = None
    window: Count | None = None
    full_layers: Annotated[int, Field(ge=0, strict=True)] | None = None
    latent: Count | None = None


class Licence(Part):
    """`id` is SPDX's where it has one, else the licence's own name; `limits` what it does not allow, in a sentence."""

    id: Name
    kind: Kind
    limits: Text = ""


class Criterion(Part):
    open: Answer
    source: Source


class Criteria(Part):
    """By the Open Source Initiative's look at AI. None where no page says."""

    training_data: Criterion | None = None
    weights: Criterion | None = None
    evaluation_code: Criterion | None = None
    finetuning_code: Criterion | None = None
    training_metrics: Criterion | None = None

    def __iter__(self) -> Iterator[tuple[str, Criterion | None]]:  # type: ignore[override]
        return ((name, getattr(self, name)) for name in CRITERIA)


class Score(Part):
    benchmark: str
    score: Annotated[float, Field(allow_inf_nan=False)]
    source: Source
    date: Month


class HostedPrice(Price):
    """What a provider asked for it in a month."""

    source: Source
    date: Month
    provider: Name


class Sources(Part):
    """The page that was opened for each fact."""

    maker: Source | None = None
    parameters: Source | None = None
    architecture: Source | None = None
    context: Source | None = None
    licence: Source | None = None
    tuned_from: Source | None = None
    released: Source | None = None
    tasks: Source | None = None
    languages: Source | None = None
    serve: Source | None = None
    precision: Source | None = None


class Model(Part):
    """`precision` is that of the published weights, `serve` the flags of `vllm serve` beyond the name."""

    name: HubId
    maker: Name
    family: str
    tuned_from: HubId | None = None
    released: Month | None = None
    parameters: Parameters | None = None
    architecture: Architecture | None = None
    context: Annotated[int, Field(ge=256, le=100_000_000, strict=True)] | None = None
    precision: Precision = "bf16"
    licence: Licence | None = None
    openness: Criteria = Criteria()
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]
    languages: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()
    serve: tuple[Name, ...] = ()
    price: HostedPrice | None = None
    sources: Sources = Sources()
    note: Text = ""

    @property
    def open(self) -> Openness | None:
        """`full` where all five criteria are met, `partial` where the weights are and one other at least in part, `weights` where
        they are alone; None where not even the weights are known to be published whole."""
        met = {name: criterion.open for name, criterion in self.openness if criterion is not None}
        if met.get("weights") != "yes":
            return None
        if len(met) == len(CRITERIA) and set(met.values()) == {"yes"}:
            return "full"
        return "partial" if any(answer != "no" for name, answer in met.items() if name != "weights") else "weights"

    @property
    def shape(self) -> Shape | None:
        """None where not even the number of parameters is known."""
        if self.parameters is None:
            return None
        if self.architecture is None:
            return Shape(self.parameters.total)
        return Shape(self.parameters.total, **self.architecture.model_dump(exclude={"name", "heads"}))

    def memory(
        self, precision: Precision | None = None, context: int | None = None, sequences: int = 1
    ) -> Memory | None:
        """At the published precision and SHORT_CONTEXT where nothing else is asked, never beyond its own context; None where too
        little is known."""
        if self.shape is None:
            return None
        tokens = SHORT_CONTEXT if context is None else context
        return memory_of(self.shape, precision or self.precision, min(tokens, self.context or tokens), sequences)

    def memory_gb(self, precision: Precision, context: int, sequences: int = 1) -> float | None:
        memory = self.memory(precision, context, sequences)
        return None if memory is None else memory.total

    @property
    def command(self) -> tuple[str, ...]:
        """The words of its launch line."""
        return ("vllm", "serve", self.name, *self.serve)

    @cached_property
    def described(self) -> Mapping[str, Any]:
        """As JSON has it, with how open it is, its memory in GB and the words of its launch line; what is not known is left out."""
        entry = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"openness"})
        criteria = {name: criterion.model_dump() for name, criterion in self.openness if criterion is not None}
        short = {precision: self.memory(precision) for precision in PRECISIONS}
        whole = {precision: self.memory(precision, self.context) if self.context else None for precision in PRECISIONS}
        return {
            **entry,
            "openness": {"level": self.open, **criteria},
            "memory_gb": {precision: round(m.total, 1) if m else None for precision, m in short.items()},
            "memory_gb_full_context": {precision: round(m.total, 1) if m else None for precision, m in whole.items()},
            "command": list(self.command),
        }
