"""Drafts of experts: for a model of the catalogue, or for one that a server has."""

from __future__ import annotations

import re
from collections.abc import Collection

from router.cataloguing.draft import Draft
from router.cataloguing.entry import Model
from router.cataloguing.fitting import Fit
from router.experts import ExpertsFile


def fitted(expert: str, fit: Fit, file: ExpertsFile, url: str | None, quantised: str | None = None) -> Draft:
    """Without `url` its worker is launched, on the first GPUs that no other expert of the file has; `quantised` is the hub id of a
    copy that is served in place of the model.
    """
    model = fit.model
    return Draft(
        expert=expert,
        about=_about(fit),
        model=quantised or model.name,
        domains=dict.fromkeys(domains_of(model, file.domain_names)),
        url=url,
        arguments=arguments_of(fit, quantised),
        gpus=tuple(free_gpus(file, fit.gpus)),
        price=model.price,
        context=fit.context,
        capabilities=_capabilities(model),
        languages=_languages(model),
        fallbacks=_fallbacks(expert, file),
    )


def served(
    expert: str,
    model: str,
    file: ExpertsFile,
    url: str,
    context: int | None,
    known: Model | None,
    adapter: str | None = None,
) -> Draft:
    """For what runs at `url`, with the window in tokens that its server told; `known` is what the catalogue has of it. With an
    `adapter`, `model` is what that belongs to."""
    return Draft(
        expert=expert,
        about=_terms(known) if known else "",
        model=model,
        domains=dict.fromkeys(domains_of(known, file.domain_names)) if known else {},
        url=url,
        adapter=adapter,
        price=known.price if known else None,
        context=context or (known.context if known else None),
        capabilities=_capabilities(known) if known else (),
        languages=_languages(known) if known else (),
        fallbacks=_fallbacks(expert, file),
    )


def id_for(model: str, file: ExpertsFile) -> str:
    """An id for an expert of that model which the file does not have yet."""
    words = re.sub(r"[^a-z0-9._-]+", "-", model.rpartition("/")[2].lower()).strip("._-")[:56] or "expert"
    taken = {*file.experts, *file.aliases, "auto", "none"}
    names = (f"{words}-{n}" if n > 1 else words for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _fallbacks(expert: str, file: ExpertsFile) -> tuple[str, ...]:
    return () if file.fallback == expert else (file.fallback,)


def _languages(model: Model) -> tuple[str, ...]:
    return ("ja",) if "japanese" in model.tasks else ()


def _about(fit: Fit) -> str:
    where = "a GPU" if fit.gpus == 1 else f"each of {fit.gpus} GPUs"
    return f"{_terms(fit.model)} At {fit.precision} it takes {fit.each_gb:.1f} GB of {where}, by docs/catalog.md."


def _terms(model: Model) -> str:
    licence = model.licence
    limits = f": {licence.limits.rstrip('.')}" if licence and licence.limits else ""
    terms = f" Licence: {licence.id}{limits}." if licence else ""
    return f"Of {model.maker}.{terms}"


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


def _capabilities(model: Model) -> tuple[str, ...]:
    """vLLM has every model answer by a JSON schema; tools take a parser."""
    tools = any(word.partition("=")[0] == "--tool-call-parser" for word in model.serve)
    return (*(("tools",) if tools else ()), "json_schema", *(("vision",) if "vision" in model.tasks else ()))
