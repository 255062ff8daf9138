"""Windows: experts that are said to read more tokens than their worker can. Prompts between the two go there, and are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.checking.rule import Warned
from router.experts import Expert, ExpertsFile


def context_too_large(file: ExpertsFile) -> Iterator[Warned]:
    """By the flags that its worker is launched with, else by the catalogue. What the worker itself says is for --live."""
    for name, expert in file.experts.items():
        if expert.context_window is None:
            continue
        known = _launched(file, expert) or _catalogued(expert)
        if known is not None and expert.context_window > known[0]:
            words = f"{expert.context_window} tokens, but {known[1]} takes {known[0]}: longer prompts are sent there and refused"
            yield Warned("context-too-large", ("experts", name, "context_window"), words)


def _launched(file: ExpertsFile, expert: Expert) -> tuple[int, str] | None:
    """What --max-model-len of its own worker, or of the one that it is an adapter on, says."""
    launch = file.experts[expert.upstream.worker].upstream.launch if expert.upstream.worker else expert.upstream.launch
    said = None if launch is None else launch.value("max-model-len")
    tokens = None if said is None else _tokens(said)
    return None if tokens is None else (tokens, f"its worker, by --max-model-len {said},")


def _tokens(said: str) -> int | None:
    """As vLLM reads it: 32768, 32k (thousands) or 32K (of 1024); None where that is something else, such as auto."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", said)
    if match is None:
        return None
    return int(float(match[1]) * {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20}[match[2]])


def _catalogued(expert: Expert) -> tuple[int, str] | None:
    """By the whole name alone: a model that has another's name but for its owner may have been stretched."""
    from router.cataloguing.catalog import load_catalog

    if expert.stand_in or expert.upstream.litellm:
        return None  # a provider may serve it otherwise than its makers do
    launch = expert.upstream.launch
    said = (launch.model if launch and launch.model else expert.model).lower()
    found = (model for model in load_catalog().models.values() if model.name.lower() == said)
    model = next(found, None)
    return None if model is None or model.context is None else (model.context, f"{model.name}, by the catalogue,")
