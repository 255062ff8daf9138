"""What the router is asked where a labelled row is sent as a request: the same survey reads it that reads requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.dataset import Row
from router.decision import Query
from router.errors import MessagesError
from router.messages import Message, Survey, read_messages


@dataclass(frozen=True)
class Asking:
    """`query` is the whole row's; `moments` those of the conversation as it stood at each of the user's turns, one or more.

    `labels` are the turns' where the row has them. A library's request to answer again is no turn.
    """

    query: Query
    moments: tuple[Query, ...]
    labels: tuple[str, ...] = ()


def asking_of(row: Row) -> Asking:
    """A row that could not be sent as it is, such as one with half a character, is asked by its user's turns alone."""
    try:
        return _asking(read_messages(row.messages), row.turn_domains) if row.messages else _of_turns(row)
    except MessagesError:
        return _of_turns(row)


def text_query(text: str) -> Query:
    """The query of a bare prompt."""
    return Survey.of([Message("user", text)]).query()


def _of_turns(row: Row) -> Asking:
    return _asking([Message("user", turn) for turn in row.turns or (row.text,)], row.turn_domains)


def _asking(messages: Sequence[Message], labels: Sequence[str]) -> Asking:
    """`labels` are those of the user's messages that say something."""
    said = [end for end, message in enumerate(messages, 1) if message.role == "user" and message.has_text]
    moments: list[Query] = []
    kept: list[str] = []
    for number, end in enumerate(said):
        survey = Survey.of(messages[:end])
        if not survey.continues:
            moments.append(survey.query())
            kept += labels[number : number + 1]
    return Asking(Survey.of(messages).query(), tuple(moments), tuple(kept))
