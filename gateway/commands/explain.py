"""moe-gateway explain."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.explained import print_explained
from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, provisioned
from gateway.console import fail, print_json

if TYPE_CHECKING:
    from router.decision import Query
    from router.routing import Router


def explain(
    text: Annotated[str | None, typer.Argument(help="A prompt.")] = None,
    messages: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A file with a conversation in OpenAI's shape: messages, or a whole request; - is stdin.",
        ),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    model: Annotated[
        str | None, typer.Option(help="A virtual model, an expert or an alias; auto where the request names none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say why a prompt, or a conversation, would be answered by the expert that it is.

    Example: moe-gateway explain "How do I reverse a list?" --model auto:cheap
    Example: moe-gateway explain --messages conversation.json --json

    --json prints what POST /v1/route answers with {"explain": true}: the decision's keys, and under explanation the
    keys why, text, policy, stages, experts, features, nearest and conversation (router/explaining/explanation.py describes them).
    """
    if text is not None and messages is None:
        query = _of_text(text)
    elif messages is not None and text is None:
        query = _of_file(messages)
    else:
        raise typer.BadParameter("give a prompt, or --messages FILE")
    if model is not None:
        query = replace(query, requested_model=model)
    document = explained(provisioned(config, state), query)
    print_json(document) if as_json else print_explained(document)


def explained(router: Router, query: Query) -> dict[str, Any]:
    """What POST /v1/route answers to `query` with an explanation. Leaves with status 1 where its model is not known.

    Raises NoExpertError where no expert is able.
    """
    from router.explaining.explain import Explainer

    target = router.resolve(query.requested_model)
    if target is None:
        from gateway.deciding import Decider

        fail(Decider(router).unknown(query.requested_model))
    query = replace(query, requested_model=target)
    router.score_many([query.text])  # the first time everything is slow, as it is in no gateway that runs
    decision = router.decide(query)
    told = decision.described() | {"model": router.file.experts[decision.expert].model}
    return told | {"explanation": Explainer(router).explain(query, decision).described()}


def _of_text(text: str) -> Query:
    from gateway.requests.routed import text_query

    if not text.strip():
        raise typer.BadParameter("the prompt is empty")
    return text_query(text)


def _of_file(name: str) -> Query:
    """The request of a file that holds its messages alone, or the whole of it. Leaves with status 1 where it is neither."""
    from gateway.errors import BadRequestError
    from gateway.requests.chat import Chat

    try:
        body = (sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()).strip()
    except OSError as error:
        fail(f"{name}: {error.strerror}")
    try:
        return Chat.parse(b'{"messages":' + body + b"}" if body.startswith(b"[") else body).query()
    except BadRequestError as error:
        fail(f"{'standard input' if name == '-' else name}: {error.message}")
