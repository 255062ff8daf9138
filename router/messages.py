"""The messages of a conversation in OpenAI's shape, and what the router is asked where they are sent: of requests that are
served and of rows that are measured alike. Typed only where something is read."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from router.conversation import clip, is_retry, looked_at
from router.decision import Asked, Query
from router.errors import MessagesError

Raw = msgspec.Raw
# English text is about four characters a token; no tokenizer in use packs ordinary text tighter than eight.
BYTES_PER_TOKEN = 4
MOST_BYTES_PER_TOKEN = 8
IMAGE_TOKENS = 500
# How chat, the Responses API and Anthropic's Messages call the parts that have to be seen or heard.
SEEN = frozenset({"image_url", "input_image", "image", "video_url"})
HEARD = frozenset({"input_audio", "audio_url"})
_IMAGE = re.compile(rb'"type"\s*:\s*"(?:image|input_image)"')
# Far beyond what a conversation has; walking through millions would keep the others waiting.
MAX_MESSAGES = 20_000
MAX_PARTS = 20_000


class Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None
    input: Raw = Raw()
    content: Raw = Raw()

    @property
    def written(self) -> int:
        """The bytes of JSON that it holds beside its text: the arguments of a tool's call, or what the tool answered."""
        return sum(len(json) for json in (self.input, self.content) if not absent(json))


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    tool_calls: Raw = Raw()
    function_call: Raw = Raw()

    @property
    def written(self) -> int:
        """The bytes of JSON that it holds beside its text: the calls of tools, with their arguments."""
        return sum(len(calls) for calls in (self.tool_calls, self.function_call) if not absent(calls))

    @property
    def has_text(self) -> bool:
        parts = self.content if isinstance(self.content, list) else [Part(text=self.content)]
        return any(part.text and part.text.strip() for part in parts)


@dataclass(frozen=True, slots=True)
class Turn:
    """One time that the user spoke. `before` and `after` are the conversation's size in tokens without and with it, `kinds`
    the kinds of parts that the conversation had with it."""

    text: str
    before: int
    after: int
    kinds: frozenset[str]


@dataclass
class Survey:
    """What one walk over the messages found: bytes of text, the kinds of parts and how many, what the user said.

    `written` are the bytes of JSON beside the text: the tools that may be called, and the calls. A worker shows them to its
    model in a spelling of its own, so that they count for an estimate, and for nothing that is sure.
    `continues` says that the last message goes on with an answer under way: it is a tool's result, a library's request to
    answer again without mistakes, or the start of the answer itself. Such messages are no turns of the user; whatever else
    is said in the user's name is one, an answer to a tool's call or not.
    """

    size: int = 0
    written: int = 0
    images: int = 0
    parts: int = 0
    kinds: set[str] = field(default_factory=set)
    turns: list[Turn] = field(default_factory=list)
    continues: bool = False

    @staticmethod
    def of(messages: Sequence[Message], tools: int = 0) -> Survey:
        """`tools` are the bytes of the tools' descriptions, which stand before all messages.

        Raises MessagesError where there are too many messages or parts, or a user message has nothing in it."""
        at_most(len(messages), MAX_MESSAGES, "messages")
        survey = Survey(written=tools)
        for i, message in enumerate(messages):
            if message.role == "user" and message.content in (None, []):
                raise MessagesError(f"messages[{i}].content is empty; a user message needs text.", "messages")
            before = survey.tokens
            text = survey._text_of(message.content)
            survey.size += len(text.encode("utf-8", "replace"))
            survey.written += message.written
            if message.role == "user":
                survey._user(text, message, before)
            elif message.role not in ("system", "developer"):
                survey.continues = True
        return survey

    @property
    def tokens(self) -> int:
        """The estimated size of what was walked over so far."""
        return (self.size + self.written) // BYTES_PER_TOKEN + self.images * IMAGE_TOKENS

    def _user(self, text: str, message: Message, before: int) -> None:
        """A message in the user's name."""
        parts = message.content if isinstance(message.content, list) else []
        result = not text.strip() and any(part.type == "tool_result" for part in parts)
        self.continues = bool(self.turns) and (result or is_retry(text))
        if text.strip() and not self.continues:
            self.turns.append(Turn(text, before, self.tokens, frozenset(self.kinds)))

    def _text_of(self, content: str | list[Part] | None) -> str:
        if not isinstance(content, list):
            return content or ""
        self.parts += len(content)
        at_most(self.parts, MAX_PARTS, "parts of messages")
        for part in content:
            self.kinds.add(part.type)
            self.images += part.type in SEEN
            if part.type == "tool_result" and _IMAGE.search(part.content):
                self.kinds.add("image")
            self.written += part.written
        return "\n".join(part.text for part in content if part.text)

    def query(self, needs: frozenset[str] = frozenset()) -> Query:
        """What the router is asked; `needs` are those of the request besides its messages."""
        turns = looked_at(self.turns)
        *earlier, text = [clip(turn.text) for turn in turns] or [""]
        return Query(
            text=text,
            needs=needs | _needs(self.kinds),
            tokens=self.tokens,
            least_tokens=self.size // MOST_BYTES_PER_TOKEN,
            earlier=tuple(earlier),
            continues=self.continues,
            asked=tuple(Asked(turn.before, turn.after, needs | _needs(turn.kinds)) for turn in turns),
        )


def read_messages(raw: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages that were JSON. Raises MessagesError where they are none that could be sent."""
    try:
        return _MESSAGES.decode(json.dumps(raw))
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise MessagesError(str(error), "messages") from None


def at_most(count: int, limit: int, what: str) -> None:
    """Raises MessagesError where there are more."""
    if count > limit:
        raise MessagesError(f"The request has {count} {what}; {limit} is the most that is taken.")


def absent(value: Raw | None) -> bool:
    """Whether a field was not sent, or sent as null."""
    return value is None or bytes(value) in (b"", b"null")


def _needs(kinds: Collection[str]) -> frozenset[str]:
    """What an expert has to be able to, to read parts of these kinds."""
    needs = {"vision": not SEEN.isdisjoint(kinds), "audio": not HEARD.isdisjoint(kinds)}
    return frozenset(need for need, needed in needs.items() if needed)


_MESSAGES = msgspec.json.Decoder(list[Message])
