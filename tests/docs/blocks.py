"""The blocks of a page, and the bash script that a page is: each line of it stands on the line that it has in the page."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from markdown_it import MarkdownIt

END = "__END__"
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block: `first` and `last` are the lines of its fences, counted from 0; `language` is empty where none is named."""

    language: str
    title: str | None
    text: str
    first: int
    last: int


def blocks(markdown: str) -> list[Block]:
    """Every fenced block, in order. What is a block by its indentation alone has the language `indented`."""
    found = []
    for token in MarkdownIt().parse(markdown):
        if token.type not in {"fence", "code_block"} or token.map is None:
            continue
        info = token.info.strip() if token.type == "fence" else "indented"
        title = TITLE.search(info)
        language = info.split()[0] if info else ""
        found.append(Block(language, title and title[1], token.content, token.map[0], token.map[1] - 1))
    return found


def inline(markdown: str) -> list[str]:
    """What stands in the text as code."""
    found: list[str] = []
    for token in MarkdownIt().enable("table").parse(markdown):
        found += [child.content for child in token.children or [] if child.type == "code_inline"]
    return found


def script(markdown: str) -> str:
    """The page for bash: shell blocks as they are, files that are saved, Python that is run. Empty where there is nothing of it.

    It needs PAGES_FOLDER, where each block begins, and `save NAME` and `python`, which read standard input.
    """
    lines = [""] * (markdown.count("\n") + 1)
    for block in blocks(markdown):
        inside = block.text.split("\n")[:-1]
        if block.title is not None:
            inside = [f"save {shlex.quote(block.title)} <<'{END}'", *inside, END]
        elif block.language == "python":
            inside = [f"python - <<'{END}'", *inside, END]
        elif block.language == "sh":
            inside = ['cd "$PAGES_FOLDER"', *inside, ""]
        else:
            continue
        lines[block.first : block.last + 1] = inside
    return "\n".join(lines) if any(lines) else ""


def commands(markdown: str, program: str) -> list[list[str]]:
    """The words of each shell line that runs a program, variables set before it left out."""
    found = []
    for block in blocks(markdown):
        for line in block.text.replace("\\\n", " ").splitlines() if block.language == "sh" else ():
            words = shlex.split(line, comments=True) if program in line else []
            while words and re.match(r"\w+=", words[0]):
                words = words[1:]
            if words[:1] == [program]:
                found.append(words)
    return found
