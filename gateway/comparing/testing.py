"""Runs the test command of a prompt on an answer: in a folder of its own, with little of the machine, for a short time.

It is no sandbox: what a model wrote runs as the user who asked for it, and may reach the network. It gets none of the
gateway's environment.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MIB = 1024 * 1024
MEMORY_BYTES = 2048 * MIB
FILE_BYTES = 16 * MIB
TOLD_BYTES = 400
NOT_STARTED = 127
_LIMITED = Path(__file__).with_name("limited.py")
_FENCE = re.compile(r"^[ ]{0,3}```[^\n]*\n(.*?)(?:^[ ]{0,3}```|\Z)", re.DOTALL | re.MULTILINE)


class Verdict(NamedTuple):
    """Whether the test passed, and where it did not the end of what it said."""

    passed: bool
    why: str = ""


def run_test(command: Sequence[str], answer: str, seconds: float) -> Verdict:
    """The command's verdict on an answer, which it finds on standard input and in answer.txt, and in answer.code the code in it:
    its first fenced block, or where it has none all of it. Blocks for at most `seconds`."""
    with tempfile.TemporaryDirectory(prefix="moe-test-") as name:
        folder = Path(name)
        (folder / "answer.txt").write_text(answer, "utf-8", errors="replace")
        (folder / "answer.code").write_text(code_of(answer), "utf-8", errors="replace")
        with (folder / "answer.txt").open("rb") as given, (folder / "told").open("w+b") as told:
            limits = (str(max(1, round(seconds))), str(MEMORY_BYTES), str(FILE_BYTES))
            process = subprocess.Popen(  # noqa: S603 - the operator's own command, asked for
                [sys.executable, "-I", str(_LIMITED), *limits, *command],
                stdin=given,
                stdout=told,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": name, "LANG": "C.UTF-8"},
                start_new_session=True,
            )
            status = _waited(process, seconds)
            told.seek(max(0, told.seek(0, os.SEEK_END) - TOLD_BYTES))
            end = told.read().decode("utf-8", "replace").strip()
    if status == 0:
        return Verdict(True)
    if status is None:
        return Verdict(False, f"the test took longer than {seconds:g} s")
    return Verdict(False, end or f"the test ended with {status}")


def code_of(answer: str) -> str:
    """The first fenced block of an answer; all of it where there is none."""
    found = _FENCE.search(answer)
    return found[1] if found else answer


def _waited(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The command's exit status, None where it took too long; nothing of its group is left in either case."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
