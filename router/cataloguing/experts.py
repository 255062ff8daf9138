"""Experts: an entry of experts.yaml for a model of the catalogue, as the lines that a person would write."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Collection, Iterator, Sequence

from router.cataloguing.entry import Model
from router.cataloguing.fitting import Fit
from router.experts import ExpertsFile

WIDE = 110  # characters of a line of comment
_PLAIN = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._/=+:-]*")
_NOT_TEXT = re.compile(
    r"(?i)(true|false|null|yes|no|on|off|-+|[-+.0-9_e:]+|[-+]?0[xob][0-9a-f_]+)"
)  # nor might be, to YAML
_NUMBER = re.compile(r"0|[1-9][0-9]*")  # is read back as the same text


def expert_lines(expert: str, fit: Fit, file: ExpertsFile, url: str | None, quantised: str | None = None) -> list[str]:
    """The entry, its key at no indentation.

    Without `url` its worker is launched, on the first GPUs that no other expert of the file has; `quantised` is the hub id of a
    copy that is served in place of the model.
    """
    return list(_lines(expert, fit, file, url, quantised))


def _lines(expert: str, fit: Fit, file: ExpertsFile, url: str | None, quantised: str | None) -> Iterator[str]:
    model = fit.model
    yield f"{_scalar(expert)}:"
    yield from (f"  # {line}" for line in textwrap.wrap(_about(fit), WIDE))
    yield f"  model: {_scalar(quantised or model.name)}"
    yield f"  domains: {_list(domains_of(model, file.domain_names))}"
    if url is not None:
        yield f"  upstream: {{vllm: [{_scalar(url)}]}}"
    else:
        yield "  upstream:"
        yield "    launch:"
        yield "      engine: vllm"
        if words := arguments_of(fit, quantised):
            yield f"      args: {_list(words)}"
        yield f"      gpus: [{', '.join(map(str, free_gpus(file, fit.gpus)))}]"
    if model.price is not None:
        price = model.price
        figures = f"{{input: {_figure(price.input)}, output: {_figure(price.output)}}}"
        yield f"  price: {figures}  # USD per million tokens, as {price.provider} asked in {price.date}"
    yield f"  context_window: {fit.context}"
    yield f"  capabilities: {_list(_capabilities(model))}"
    if "japanese" in model.tasks:
        yield "  languages: [ja]"
    if file.fallback != expert:
        yield f"  fallbacks: {_list([file.fallback])}"


def _about(fit: Fit) -> str:
    licence = fit.model.licence
    where = "a GPU" if fit.gpus == 1 else f"each of {fit.gpus} GPUs"
    limits = f": {licence.limits.rstrip('.')}" if licence and licence.limits else ""
    terms = f" Licence: {licence.id}{limits}." if licence else ""
    return (
        f"Of {fit.model.maker}.{terms} At {fit.precision} it takes {fit.each_gb:.1f} GB of {where}, by docs/catalog.md."
    )


def domains_of(model: Model, known: Collection[str]) -> list[str]:
    """The domains of the file that its tasks name; general where none does."""
    return [domain for domain in known if domain in model.tasks] or ["general"]


def arguments_of(fit: Fit, quantised: str | None) -> tuple[str, ...]:
    """Those of the fit; a copy that is quantised already is not quantised anew."""
    words = fit.arguments
    if quantised is not None and "--quantization" in words:
        place = words.index("--quantization")
        return (*words[:place], *words[place + 2 :])
    return words


def free_gpus(file: ExpertsFile, number: int) -> list[int]:
    """The first `number` that no expert's launch has."""
    taken = {gpu for expert in file.experts.values() if expert.upstream.launch for gpu in expert.upstream.launch.gpus}
    return [gpu for gpu in range(number + len(taken)) if gpu not in taken][:number]


def _capabilities(model: Model) -> list[str]:
    """vLLM has every model answer by a JSON schema; tools take a parser."""
    tools = any(word.partition("=")[0] == "--tool-call-parser" for word in model.serve)
    return [*(["tools"] if tools else []), "json_schema", *(["vision"] if "vision" in model.tasks else [])]


def _figure(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"


def _list(words: Sequence[str]) -> str:
    return f"[{', '.join(map(_scalar, words))}]"


def _scalar(word: str) -> str:
    """As YAML has it: bare where that can only be read as this text, else in quotes."""
    if _NUMBER.fullmatch(word) or (_PLAIN.fullmatch(word) and not word.endswith(":") and not _NOT_TEXT.fullmatch(word)):
        return word
    return json.dumps(word)
