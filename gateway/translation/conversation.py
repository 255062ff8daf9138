"""A conversation in Anthropic's shape, as the messages of a chat request.

What chat has no place for is put where a model can still read it: the images of a tool's result into the message after it, a
system message amid the conversation onto its neighbour, as most chat templates take one at the beginning only. What would be
lost altogether, such as a PDF, is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NoReturn

import msgspec

from gateway.translation.reading import Raw, read, refuse, shown
from router.messages import absent

# Claude Code has sent these two besides Anthropic's own.
USER_ROLES = ("user", "ctx", "msg")
# Claude Code's first block of the system prompt: it differs with every request, so that no prefix would be found in a cache.
BILLING = "x-anthropic-billing-header"
IMAGE_BELOW = "[The image is in the next message.]"
# What may stand in the content of each. No deeper than that: every level would be read again in full.
IN_DOCUMENT, IN_SEARCH_RESULT = ("text", "image"), ("text",)
IN_USER = (*IN_DOCUMENT, "document", "search_result")
IN_TOOL_RESULT = (*IN_USER, "tool_reference")
Part = dict[str, Any]


class Block(msgspec.Struct):
    type: str
    text: str | None = None
    thinking: str | None = None
    source: Raw = Raw()
    title: str | None = None
    context: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw()
    tool_use_id: str | None = None
    tool_name: str | None = None
    content: Raw = Raw()
    is_error: bool | None = None


class Turn(msgspec.Struct):
    role: str
    content: str | list[Block]


class Source(msgspec.Struct):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: Raw = Raw()


def chat_messages(messages: Raw, system: Raw | None) -> list[dict[str, Any]]:
    """The chat messages of the fields `messages` and `system`. Raises BadRequestError where a block cannot be translated."""
    conversation = Conversation()
    if system is not None and not absent(system):
        conversation.system(read(system, _BLOCKS, "system"), "system")
    turns: list[Turn] = read(messages, _TURNS, "messages")
    for i, turn in enumerate(turns):
        path = f"messages[{i}]"
        if turn.role == "system":
            conversation.system(turn.content, f"{path}.content")
        elif turn.role == "assistant":
            conversation.assistant(turn.content, f"{path}.content")
        elif turn.role in USER_ROLES:
            conversation.user(turn.content, f"{path}.content")
        else:
            refuse(f"{path}.role", f"{shown(turn.role)} is none of the roles user, assistant and system.")
    return conversation.messages()


class Conversation:
    """Chat messages under construction: contents are lists, so that a turn may still be joined to the one before it."""

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []
        self._held: list[str] = []  # what the system said since the assistant spoke

    def system(self, content: str | list[Block], path: str) -> None:
        """Text of the system's, at the beginning or amid the conversation."""
        texts = [text for text in map(_without_billing, _system_texts(content, path)) if text]
        if not self._messages:
            self._messages.append({"role": "system", "content": []})
        last = self._messages[-1]
        if last["role"] in ("system", "tool"):
            last["content"] += texts
        elif last["role"] == "user" and not self._held:
            last["content"] += [_text_part("\n\n" + text) for text in texts]
        else:
            self._held += texts

    def user(self, content: str | list[Block], path: str) -> None:
        """What the user said. The results of tools come first, each a message of its own, as chat wants them."""
        parts: list[Part] = []
        results: list[dict[str, Any]] = []
        images: list[Part] = []
        for j, block in enumerate(_as_blocks(content)):
            if block.type == "tool_result":
                results.append(_tool_message(block, images, f"{path}[{j}]"))
            else:
                parts += _parts(block, f"{path}[{j}]", IN_USER)
        if not results and not parts:
            refuse(path, f"{path} is empty; a user message needs something in it.")
        self._messages += results
        self._said([*images, *parts])

    def assistant(self, content: str | list[Block], path: str) -> None:
        """What the model answered: text, reasoning, calls of tools."""
        self._release()
        if not self._messages or self._messages[-1]["role"] != "assistant":
            self._messages.append({"role": "assistant", "content": [], "reasoning": [], "tool_calls": []})
        message = self._messages[-1]
        for j, block in enumerate(_as_blocks(content)):
            if block.type == "text":
                message["content"].append(_needed(block.text, f"{path}[{j}].text"))
            elif block.type == "thinking":
                message["reasoning"].append(_needed(block.thinking, f"{path}[{j}].thinking"))
            elif block.type == "tool_use":
                message["tool_calls"].append(_tool_call(block, f"{path}[{j}]"))
            elif block.type != "redacted_thinking":  # which only Anthropic's servers can read
                _refuse_block(block, f"{path}[{j}]")

    def messages(self) -> list[dict[str, Any]]:
        """The chat messages; nothing can be added after."""
        self._release()
        return [_finished(message) for message in self._messages if message["role"] != "system" or message["content"]]

    def _said(self, parts: list[Part]) -> None:
        """Parts of a user message, after what the system said before it."""
        last = self._messages[-1] if self._messages else None
        if self._held and not parts and last is not None and last["role"] == "tool":
            last["content"] += self._held
        else:
            parts = [_text_part(text + "\n\n") for text in self._held] + parts
        self._held = []
        if not parts:
            return
        if last is not None and last["role"] == "user":
            last["content"] += parts
        else:
            self._messages.append({"role": "user", "content": parts})

    def _release(self) -> None:
        """What the system said goes to the model before its next answer, though the user said nothing."""
        if self._held:
            held, self._held = self._held, []
            self._messages.append({"role": "user", "content": [_text_part("\n\n".join(held))]})


def _finished(message: dict[str, Any]) -> dict[str, Any]:
    """A message with its content as chat has it: one string wherever it is only text."""
    role, content = message["role"], message["content"]
    if role == "system":
        return {"role": role, "content": "\n\n".join(content)}
    if role == "tool":
        return {**message, "content": "\n".join(content)}
    if role == "user":
        single = len(content) == 1 and content[0]["type"] == "text"
        return {"role": role, "content": content[0]["text"] if single else content}
    calls, reasoning = message["tool_calls"], "".join(message["reasoning"])
    # A text that calls or thoughts stood between was one text when the model said it: see to_events.
    finished: dict[str, Any] = {"role": role, "content": "".join(content) if content or not calls else None}
    if reasoning:  # vLLM reads the one and drops the other; elsewhere it is the reverse
        finished |= {"reasoning": reasoning, "reasoning_content": reasoning}
    return finished | {"tool_calls": calls} if calls else finished


def _as_blocks(content: str | list[Block]) -> list[Block]:
    return [Block("text", text=content)] if isinstance(content, str) else content


def _system_texts(content: str | list[Block], path: str) -> Iterator[str]:
    for j, block in enumerate(_as_blocks(content)):
        if block.type != "text":
            refuse(
                f"{path}[{j}].type",
                f"{path}[{j}].type is {shown(block.type)}; the system prompt takes text only.",
            )
        yield _needed(block.text, f"{path}[{j}].text")


def _without_billing(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(BILLING) else text


def _parts(block: Block, path: str, allowed: Collection[str]) -> list[Part]:
    """A block of a user message, or of what a block holds, as parts of chat: texts and images."""
    if block.type not in allowed:
        _refuse_block(block, path)
    if block.type == "text":
        return [_text_part(_needed(block.text, f"{path}.text"))]
    if block.type == "image":
        return [_image_part(read(block.source, _SOURCE, f"{path}.source"), f"{path}.source")]
    if block.type == "document":
        return _texts(block.title, block.context) + _document(block, f"{path}.source")
    if block.type == "search_result":
        source: str = read(block.source, _STRING, f"{path}.source")
        return _texts(block.title, source) + _nested(block.content, f"{path}.content", IN_SEARCH_RESULT)
    # A tool_reference: all tools are told to the model from the beginning, see tools.
    return _texts(f"The tool {_needed(block.tool_name, f'{path}.tool_name')} may be called.")


def _document(block: Block, path: str) -> list[Part]:
    source: Source = read(block.source, _SOURCE, path)
    if source.type == "content":
        return _nested(source.content, f"{path}.content", IN_DOCUMENT)
    if source.type != "text":
        refuse(
            f"{path}.type",
            f"{path}.type is {shown(source.type)}; only plain text can be read of documents here.",
        )
    return [_text_part(_needed(source.data, f"{path}.data"))]


def _nested(content: Raw, path: str, allowed: Collection[str]) -> list[Part]:
    blocks = _as_blocks(read(content, _BLOCKS, path))
    return [part for j, block in enumerate(blocks) for part in _parts(block, f"{path}[{j}]", allowed)]


def _image_part(source: Source, path: str) -> Part:
    if source.type == "url":
        url = _needed(source.url, f"{path}.url")
    elif source.type == "base64":
        media_type = _needed(source.media_type, f"{path}.media_type")
        url = f"data:{media_type};base64,{_needed(source.data, f'{path}.data')}"
    else:
        refuse(f"{path}.type", f"{path}.type is {shown(source.type)}; send the image as base64 or by its URL.")
    return {"type": "image_url", "image_url": {"url": url}}


def _tool_message(block: Block, images: list[Part], path: str) -> dict[str, Any]:
    """A tool's result; its images are added to `images`, as chat takes text alone from a tool."""
    parts = [] if absent(block.content) else _nested(block.content, f"{path}.content", IN_TOOL_RESULT)
    texts = [part["text"] if part["type"] == "text" else IMAGE_BELOW for part in parts]
    images += [part for part in parts if part["type"] != "text"]
    if block.is_error and not (texts and texts[0].lower().startswith("error")):  # chat has no flag for it
        texts = [f"Error: {texts[0]}" if texts else "Error", *texts[1:]]
    return {"role": "tool", "tool_call_id": _needed(block.tool_use_id, f"{path}.tool_use_id"), "content": texts}


def _tool_call(block: Block, path: str) -> dict[str, Any]:
    """The arguments are the very bytes of the input: numbers keep every digit."""
    given = b"{}" if absent(block.input) else bytes(block.input)
    if not given.startswith(b"{"):
        refuse(f"{path}.input", f"{path}.input has to be an object.")
    try:
        arguments = given.decode()
    except UnicodeDecodeError:
        refuse(f"{path}.input", f"{path}.input is not UTF-8.")
    name = _needed(block.name, f"{path}.name")
    function = {"name": name, "arguments": arguments}
    return {"id": _needed(block.id, f"{path}.id"), "type": "function", "function": function}


def _text_part(text: str) -> Part:
    return {"type": "text", "text": text}


def _texts(*texts: str | None) -> list[Part]:
    return [_text_part(text) for text in texts if text]


def _needed(value: str | None, path: str) -> str:
    if value is None:
        refuse(path, f"{path} is missing.")
    return value


def _refuse_block(block: Block, path: str) -> NoReturn:
    refuse(f"{path}.type", f"{path}.type is {shown(block.type)}, which this expert cannot be given there.")


_TURNS = msgspec.json.Decoder(list[Turn])
_BLOCKS: msgspec.json.Decoder[str | list[Block]] = msgspec.json.Decoder(str | list[Block])
_SOURCE = msgspec.json.Decoder(Source)
_STRING = msgspec.json.Decoder(str)
