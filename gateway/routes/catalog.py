"""GET /v1/catalog: open models that people deploy, as moe-gateway catalog list has them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from gateway.errors import BadRequestError
from router.errors import CatalogError

routes = APIRouter(tags=["catalogue"])
# What may be asked: a filter's values, where they are few, and what it does.
ASKED: Mapping[str, tuple[Sequence[str], str]] = {
    "task": ((), "What its maker says it is for, such as code or bio; given several times, all have to hold."),
    "license": ((), "permissive, conditional, research, or a licence such as Apache-2.0."),
    "max_gb": ((), "At most so many GB of GPU memory, with one sequence of 8,192 tokens."),
    "precision": (
        ("bf16", "fp8", "4bit"),
        "Reckon that memory at this precision, else at that of the published weights.",
    ),
    "open": (("full", "partial", "weights"), "At least so open."),
    "family": ((), "Such as Llama or Qwen."),
    "language": ((), "A language that its maker names, in two letters."),
    "min_context": ((), "At least so many tokens."),
    "sort": (("name", "quality", "price", "size", "released"), "What is not known comes last."),
}
PARAMETERS: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": about,
        "schema": {"type": "string", **({"enum": list(values)} if values else {})},
    }
    for name, (values, about) in ASKED.items()
]


@routes.get("/v1/catalog", openapi_extra={"parameters": PARAMETERS})
async def catalog(request: Request) -> Response:
    """The models that have what is asked; what is not known of a model does not count as met. No expert of the gateway has to
    serve them: `moe-gateway experts add` makes one of a model."""
    said: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if name not in ASKED:
            near = get_close_matches(name, ASKED, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ASKED)}."
            raise BadRequestError(f"There is no filter {name[:40]!r}; {hint}", param=name[:40])
        said.setdefault(name, []).append(value)
    try:  # in a thread: the first time the file is read, which takes some tenths of a second
        body = await asyncio.to_thread(_answer, said)
    except CatalogError as error:
        raise BadRequestError(f"{error}", param=error.param) from None
    return Response(body, media_type="application/json")


def _answer(said: Mapping[str, Sequence[str]]) -> bytes:
    """Raises CatalogError."""
    from router.cataloguing.catalog import load_catalog
    from router.cataloguing.listing import Wanted, listed

    models = load_catalog()
    found = listed(models, Wanted.read(said, models))
    return msgspec.json.encode({"object": "list", "data": [one.described() for one in found]})
