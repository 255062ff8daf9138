"""Fitting: how a model is served on the GPUs that there are: precision, tensor parallelism, context."""

from __future__ import annotations

import math
from dataclasses import dataclass

from router.cataloguing.entry import SHORT_CONTEXT, Model
from router.cataloguing.memory import Shape, memory_of, share_of_gpu
from router.cataloguing.words import PRECISIONS, Precision
from router.errors import CatalogError

# vLLM quantises published 16-bit weights while it loads them: https://docs.vllm.ai/en/v0.29.0/features/quantization/online/
ONLINE = {"fp8": ("--quantization", "fp8_per_tensor"), "4bit": ("--quantization", "mxfp4")}
LEAST_CONTEXT = 2048  # tokens: with less a model is no use


@dataclass(frozen=True)
class Fit:
    """`context` in tokens for one sequence; `each_gb` is what each of `gpus` takes then."""

    model: Model
    precision: Precision
    gpus: int
    context: int
    each_gb: float

    @property
    def quantised(self) -> bool:
        """Whether it is served narrower than it was published."""
        return self.precision != self.model.precision

    @property
    def arguments(self) -> tuple[str, ...]:
        """For `vllm serve`, after the model's name."""
        words = list(self.model.serve)
        if self.quantised:
            words += ONLINE[self.precision]
        if self.gpus > 1:
            words += ["--tensor-parallel-size", str(self.gpus)]
        if self.context < (self.model.context or 0):
            words += ["--max-model-len", str(self.context)]
        return tuple(words)


def fit(model: Model, gpu_gb: float, gpus: int = 1, precision: Precision | None = None) -> Fit:
    """The widest precision that leaves room for a short context, on as few of `gpus` GPUs of `gpu_gb` GB as will do; then as long
    a context as goes in. What was published narrower than 16 bits stays as it is, and so does a `precision` that is given. Raises
    CatalogError where nothing fits, or too little is known.
    """
    shape, context = model.shape, model.context
    if shape is None or context is None or model.memory() is None:
        raise CatalogError(
            "too little is known of the model to say what memory it takes: its parameters, layers or context"
        )
    given = precision or (None if model.precision == "bf16" else model.precision)
    precisions = PRECISIONS if given is None else (given,)
    splits = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= gpus and _splits(model, n)]
    tried = [(one, number) for one in precisions for number in splits]
    for least, ways in ((SHORT_CONTEXT, tried), (LEAST_CONTEXT, tried[-1:])):  # better a short context than none
        for one, number in ways:
            longest = _longest(shape, context, one, gpu_gb, number)
            if longest >= min(least, context):
                return Fit(model, one, number, longest, _each(shape, one, longest, number))
    last, number = tried[-1]
    takes = _each(shape, last, min(LEAST_CONTEXT, context), number)
    several = f"{number} GPUs of {gpu_gb:g} GB: at {last} it takes {takes:.1f} GB of each"
    single = f"a GPU of {gpu_gb:g} GB: at {last} it takes {takes:.1f} GB"
    raise CatalogError(
        f"it does not fit on {several if number > 1 else single}, with a context of {LEAST_CONTEXT} tokens"
    )


def _splits(model: Model, gpus: int) -> bool:
    """vLLM deals out whole attention heads."""
    heads = model.architecture.heads if model.architecture else None
    return gpus == 1 or (heads is not None and heads % gpus == 0)


def _longest(shape: Shape, context: int, precision: Precision, gpu_gb: float, gpus: int) -> int:
    """The whole context, else the longest power of two that goes in, 0 where none does."""
    powers = [2**n for n in range(context.bit_length(), 9, -1) if 2**n < context]
    return next((n for n in (context, *powers) if _each(shape, precision, n, gpus) <= gpu_gb), 0)


def _each(shape: Shape, precision: Precision, context: int, gpus: int) -> float:
    memory = memory_of(shape, precision, context)
    return math.inf if memory is None else share_of_gpu(memory, shape, gpus)
