"""Memory: what a model takes of a GPU's memory, in GB of 10^9 bytes, by one stated formula.

    memory = 1.2 · weights + cache

- weights = body · b + frame · 2, in bytes. b is 2 at bf16, 1 at fp8 and 0.52 at 4 bit: half a byte, and for every 128 weights
  a scale of 16 bits and a zero of 4, as AWQ and GPTQ store groups of 128. The frame is the embedding and the output head,
  which quantised checkpoints keep at 16 bits (https://docs.vllm.ai/en/v0.5.4/quantization/fp8.html says so of the head); the
  catalogue does not know vocabularies, so that of Llama 3 is taken: 2 · 128,256 · hidden parameters. The body is the rest.
  Where `hidden` is not known, or the frame would be more than a third of the model, as with the short vocabularies of
  small old ones, a third is taken.
- cache = values · 2 bytes · sequences, with values = Σ over layers of 2 · kv_heads · head_dim · tokens, a key and a value for
  each token (section 3 of the PagedAttention paper, https://arxiv.org/abs/2309.06180). Of a model with multi-head latent
  attention a token and layer is `latent` values (https://arxiv.org/abs/2405.04434). Layers with a sliding `window` keep no
  more tokens than it is long; where `full_layers` is given without a window, the other layers keep no cache: a hybrid's
  state, which does not grow, is not counted. vLLM keeps the cache in the model's own 16 bits whatever the weights have
  (--kv-cache-dtype auto), and so does this.
- 1.2: activations, CUDA graphs and what the engine itself takes, a fifth of the weights
  (https://blog.eleuther.ai/transformer-math/, "Total Inference Memory").

A card that is sold as 24 GB has some more than 24·10^9 bytes; that difference is left as room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from router.cataloguing.words import Precision

BYTES: Mapping[Precision, float] = {"bf16": 2.0, "fp8": 1.0, "4bit": 0.5 + (16 + 4) / 8 / 128}
CACHE_BYTES = 2
VOCABULARY = 128_256
MOST_FRAME = 1 / 3
OVERHEAD = 0.2  # of the weights
GB = 1e9


@dataclass(frozen=True)
class Shape:
    """What of a model's architecture its memory depends on; None where it is not known. `parameters` in billions."""

    parameters: float
    layers: int | None = None
    hidden: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    window: int | None = None
    full_layers: int | None = None
    latent: int | None = None

    @property
    def values(self) -> int | None:
        """Those that one layer keeps of one token."""
        if self.latent is not None:
            return self.latent
        if self.kv_heads is None or self.head_dim is None:
            return None
        return 2 * self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Memory:
    """In GB."""

    weights: float
    cache: float

    @property
    def overhead(self) -> float:
        return OVERHEAD * self.weights

    @property
    def total(self) -> float:
        return self.weights + self.overhead + self.cache

    def described(self) -> dict[str, float]:
        parts = {"weights": self.weights, "cache": self.cache, "overhead": self.overhead, "total": self.total}
        return {name: round(value, 2) for name, value in parts.items()}


def weights_gb(shape: Shape, precision: Precision) -> float:
    most = shape.parameters * MOST_FRAME
    frame = most if shape.hidden is None else min(most, 2 * VOCABULARY * shape.hidden / GB)
    return (shape.parameters - frame) * BYTES[precision] + frame * BYTES["bf16"]


def cache_gb(shape: Shape, context: int, sequences: int = 1) -> float | None:
    """For `sequences` of `context` tokens each; None where the architecture is not known."""
    if shape.values is None or shape.layers is None:
        return None
    tokens = shape.layers * context
    if shape.window is not None or shape.full_layers is not None:
        full = shape.full_layers or 0
        elsewhere = min(context, shape.window) if shape.window is not None else 0
        tokens = full * context + (shape.layers - full) * elsewhere
    return shape.values * tokens * CACHE_BYTES * sequences / GB


def memory_of(shape: Shape, precision: Precision, context: int, sequences: int = 1) -> Memory | None:
    """None where the architecture is not known."""
    cache = cache_gb(shape, context, sequences)
    return None if cache is None else Memory(weights_gb(shape, precision), cache)


def share_of_gpu(memory: Memory, shape: Shape, gpus: int) -> float:
    """What each of `gpus` takes, in GB, where the model is split among them by tensor parallelism.

    Weights are dealt out; so are the heads of the cache, and each GPU has one at the least. A latent has no heads: every GPU
    keeps the whole of it.
    """
    parts = 1 if shape.latent is not None else min(gpus, shape.kv_heads or 1)
    return (memory.weights + memory.overhead) / gpus + memory.cache / parts
