"""ReloadError: why what runs goes on running."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

# The file is wrong; it routes old domains worse, or breaks routing tests; training failed; what it needs does not start; a newer
# one took its place.
Code = Literal["invalid_config", "worse_routing", "tests_failed", "training_failed", "not_started", "superseded"]


class ReloadError(Exception):
    """Nothing has changed. `problems` say what is wrong with the other file, a line each."""

    def __init__(self, code: Code, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.code: Code = code
        self.problems = tuple(problems)
