"""Which text of a conversation is routed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# The encoder reads about 128 tokens. What is cut away before it costs nothing, and a long prompt says what it wants
# at its start or at its end, so those are what stays.
HEAD_CHARACTERS = 500
TAIL_CHARACTERS = 300
ENOUGH_CHARACTERS = 60
MAX_TURNS = 4


def clip(text: str) -> str:
    """The start and the end of a long text, joined by an ellipsis; a short one as it is, less outer white space."""
    if len(text) > 4 * (HEAD_CHARACTERS + TAIL_CHARACTERS):
        text = text[: 2 * HEAD_CHARACTERS].strip() + " … " + text[-2 * TAIL_CHARACTERS :].strip()
    text = " ".join(text.split())
    if len(text) <= HEAD_CHARACTERS + TAIL_CHARACTERS:
        return text
    return f"{text[:HEAD_CHARACTERS]} … {text[-TAIL_CHARACTERS:]}"


def routed_text(user_turns: Sequence[str]) -> str:
    """The text to classify: the last user turn, and after it earlier ones while there is too little to go by.

    `user_turns` are the texts of the user's messages, oldest first. System prompts, assistants' answers and tool results
    are not among them: they cannot choose the expert.
    """
    return "\n".join(_recent(user_turns))


def _recent(user_turns: Sequence[str]) -> Iterator[str]:
    gathered = 0
    for turn in [t for t in reversed(user_turns) if t.strip()][:MAX_TURNS]:
        if gathered >= ENOUGH_CHARACTERS:
            return
        text = clip(turn)
        gathered += len(text)
        yield text
