"""Prices: what an expert's answers cost, by the token or by the hour of its GPUs, and what savings are counted against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from router.upstream import Part
from router.values import Name, Usd, about

PER_MILLION = 1_000_000
DEAREST = "dearest"  # the baseline "always the dearest expert", so that no other has this name
# What a replica is taken to answer, in and out, where nobody has measured yet: to compare experts by, never to bill.
ASSUMED_TOKENS_PER_SECOND = 1000.0
Watts = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(Part):
    """USD per million tokens. Cached input costs as much as input where nothing is said, reasoning, which is a part of the output,
    as much as output."""

    input: Annotated[Usd, about("USD per million tokens of a prompt.", 0.15)]
    output: Annotated[Usd, about("USD per million tokens of an answer.", 0.60)]
    cached_input: Annotated[
        Usd | None,
        about("The same of a prompt's tokens that its server had in its cache; as input, where it is not said.", 0.03),
    ] = None
    reasoning: Annotated[
        Usd | None, about("The same of tokens that it thinks in; as output, where it is not said.", 0.60)
    ] = None

    @property
    def cached(self) -> float:
        """Of input that came from the cache."""
        return self.input if self.cached_input is None else self.cached_input

    @property
    def reasoned(self) -> float:
        """Of output that is reasoning."""
        return self.output if self.reasoning is None else self.reasoning

    @property
    def blended(self) -> float:
        """One figure to compare experts by: three tokens in for one out."""
        return (3 * self.input + self.output) / 4


class GpuPrice(Part):
    """USD for an hour of one GPU, and how many GPUs each replica has: those that it is launched on, else 1."""

    gpu_hour: Annotated[Usd, about("USD for an hour of one GPU.", 2.5)]
    gpus: Annotated[
        Annotated[int, Field(gt=0)] | None,
        about("How many GPUs each replica has; those that it is launched on, or 1, where it is not said.", 2),
    ] = None


class Baseline(Price):
    """The model that savings are counted against, at figures of one's own."""

    name: Annotated[Name, about("What the figures are those of.", "what we had before")]


class Energy(Part):
    """What one replica draws while it has something to do and while it has not, in watts, and what a kilowatt-hour of it emits."""

    watts: Annotated[Watts, about("What a replica draws while it has something to do.", 700)]
    idle_watts: Annotated[Watts, about("What it draws while it has not.", 90)] = 0.0
    gco2e_per_kwh: Annotated[
        Annotated[float, Field(ge=0, allow_inf_nan=False)] | None,
        about("Grams of CO2e that a kilowatt-hour of it emits.", 350),
    ] = None


def _by_what_it_says(value: Any) -> Any:
    """By the hour where it says so, else by the token: what is wrong with it is told of that one alone."""
    if isinstance(value, Price | GpuPrice):
        return value
    if not isinstance(value, Mapping):
        return Price.model_validate(value)
    hourly, by_token = GpuPrice.model_fields.keys() & value, Price.model_fields.keys() & value
    if hourly and by_token:
        raise ValueError("an expert is paid by the token or by the GPU hour: give input and output, or gpu_hour")
    return (GpuPrice if hourly else Price).model_validate(value)


AnyPrice = Annotated[Price | GpuPrice, BeforeValidator(_by_what_it_says)]
