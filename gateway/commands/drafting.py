"""Drafts of experts: for a model of the catalogue, or for what a server has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.console import fail

if TYPE_CHECKING:
    from router.cataloguing.draft import Draft
    from router.cataloguing.fitting import Fit
    from router.cataloguing.words import Precision
    from router.experts import ExpertsFile


@dataclass(frozen=True)
class Found:
    """A draft, how vLLM is started for it where that is known, and what is worth telling of it."""

    draft: Draft
    command: tuple[str, ...] = ()
    facts: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def of_catalogue(
    name: str, expert: str | None, gpu_gb: float, gpus: int, url: str | None, quantised: str | None, file: ExpertsFile
) -> Found:
    """Raises CatalogError."""
    from router.cataloguing.catalog import load_catalog
    from router.cataloguing.experts import arguments_of, fitted
    from router.cataloguing.fitting import fit

    models = load_catalog()
    key = models.find(name)
    fits = fit(models.models[key], gpu_gb, gpus, _precision(quantised))
    draft = fitted(expert or key, fits, file, None if url is None else _with_path(url), quantised)
    command = ("vllm", "serve", quantised or fits.model.name, *arguments_of(fits, quantised))
    return Found(draft, command, _facts(fits), tuple(_notes(fits, quantised)))


def of_server(
    url: str, model: str | None, expert: str | None, api_key: str | None, file: ExpertsFile, asks: bool
) -> Found:
    """Leaves with status 1 where the server does not tell its models, 2 where `url` is no address, or one of several models has
    to be named."""
    from gateway.commands.addquestions import served_model
    from gateway.commands.gatewayurl import checked_url
    from gateway.commands.servermodels import models_at
    from gateway.listing import names
    from router.cataloguing.catalog import load_catalog
    from router.cataloguing.experts import id_for, served
    from router.errors import CatalogError

    url = _with_path(checked_url(url))
    listing = models_at(url, api_key)
    if model is not None and model not in listing.cards:
        fail(f"--model: the server has no {model!r}; it has {names(listing)}")
    if model is None and len(listing.cards) > 1 and not asks:
        fail(f"the server has {names(listing)}; say which with --model", 2)
    chosen = model or served_model(listing)
    card = listing.cards[chosen]
    catalog = load_catalog()
    try:
        known = catalog.models[catalog.find(card.parent or card.root or chosen)]
    except CatalogError:
        known = None
    adapter = chosen if card.parent else None
    draft = served(
        expert or id_for(chosen, file), card.parent or chosen, file, url, listing.window(chosen), known, adapter
    )
    notes = () if known else (f"the catalogue does not know {chosen}: price and capabilities are yours to add",)
    return Found(draft, facts={"model": draft.model, "context_window": draft.context}, notes=notes)


def _with_path(url: str) -> str:
    """vLLM's API is under /v1."""
    return f"{url.rstrip('/')}/v1" if urlsplit(url).path in ("", "/") else url


def _precision(copy: str | None) -> Precision | None:
    """What a quantised copy has, by its name."""
    if copy is None:
        return None
    return "fp8" if "fp8" in copy.lower() else "4bit"


def _facts(found: Fit) -> dict[str, Any]:
    return {
        "model": found.model.name,
        "precision": found.precision,
        "gpus": found.gpus,
        "context_window": found.context,
        "gb_of_each_gpu": round(found.each_gb, 1),
    }


def _notes(found: Fit, quantised: str | None) -> list[str]:
    notes = []
    if found.precision == "4bit" and found.quantised and quantised is None:
        notes.append(
            "at 4 bits vLLM rounds the weights while it loads them (MXFP4, vLLM 0.29 or newer); a copy that was quantised with "
            "AWQ or GPTQ answers better: name one with --quantised"
        )
    if found.precision == "fp8" and found.quantised and quantised is None:
        notes.append(
            "at fp8 vLLM rounds the weights while it loads them; a GPU older than Ada computes with them in 16 bits"
        )
    if found.model.context and found.context < found.model.context:
        notes.append(
            f"a context of {found.context:,} tokens goes in, of the {found.model.context:,} that the model has"
        )
    if found.model.licence and found.model.licence.limits:
        notes.append(f"{found.model.licence.id}: {found.model.licence.limits}")
    return notes
