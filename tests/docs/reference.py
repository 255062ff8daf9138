"""The pages that are written from code: `python -m tests.docs.reference` writes them, a test compares them."""

from __future__ import annotations

from collections.abc import Callable

from tests.docs.api_page import api_page
from tests.docs.commands_page import commands_page
from tests.docs.experts_page import experts_page
from tests.docs.pages import DOCS

FOLDER = DOCS / "reference"
WRITTEN: dict[str, Callable[[], str]] = {"experts.md": experts_page, "api.md": api_page, "commands.md": commands_page}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, made in WRITTEN.items():
        (FOLDER / name).write_text(made())


if __name__ == "__main__":
    main()
