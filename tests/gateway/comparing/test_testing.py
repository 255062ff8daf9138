from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gateway.comparing import testing
from gateway.comparing.testing import Verdict, code_of, run_test
from tests.fakes.vllm_environment import soon

FENCED = "Here:\n```python\nprint(6 * 7)\n```\nand\n```\nno\n```\n"


def shell(line: str, answer: str = "", seconds: float = 20) -> Verdict:
    return run_test(("/bin/sh", "-c", line), answer, seconds)


def all_gone(*pids: int) -> bool:
    """Whether none of the processes runs any more; one that nobody waited for is gone as well."""
    return soon(lambda: not any(map(runs, pids)))


def runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_the_command_gets_the_answer_and_the_code_in_it() -> None:
    assert shell("grep -q Here && test $(cat answer.txt | wc -l) = 8", FENCED).passed
    assert shell(f"test $({sys.executable} answer.code) = 42", FENCED)[0]
    assert code_of(FENCED) == "print(6 * 7)\n"
    assert code_of("print(1)") == "print(1)"
    assert code_of("```py\nx = 1\n") == "x = 1\n"  # cut short by max_tokens


def test_a_test_that_fails_says_its_last_words() -> None:
    assert shell("echo first; echo it is wrong >&2; exit 3") == (False, "first\nit is wrong")
    assert shell("exit 3") == (False, "the test ended with 3")
    passed, why = run_test(("/no/such/command",), "", 20)
    assert not passed
    assert "/no/such/command: No such file" in why
    assert len(shell("yes | head -c 100000; exit 1")[1]) <= 400


def test_a_test_that_takes_too_long_ends_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note, waited = tmp_path / "pids", testing._waited

    def waited_once_all_run(process: subprocess.Popen[bytes], seconds: float) -> int | None:
        assert soon(lambda: note.exists() and note.read_text().count("\n") == 2)
        return waited(process, seconds)

    monkeypatch.setattr(testing, "_waited", waited_once_all_run)
    line = f"sleep 600 & echo $! > {note}; echo $$ >> {note}; sleep 600"
    assert shell(line, seconds=1) == (False, "the test took longer than 1 s")
    pids = [int(pid) for pid in note.read_text().split()]
    assert len(pids) == 2
    assert all_gone(*pids)


def test_what_a_test_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    assert shell(f"sleep 600 & echo $! > {note}")[0]
    pid = int(note.read_text())
    assert all_gone(pid)


@pytest.mark.parametrize(
    "code",
    [
        "bytearray(3 * 1024 ** 3)",
        "open('big', 'wb').write(bytes(64 * 1024 ** 2))",
        "[open('/dev/null') for _ in range(1000)]",
    ],
)
def test_memory_files_and_their_number_are_bounded(code: str) -> None:
    passed, why = run_test((sys.executable, "-c", code), "", 20)
    assert not passed
    assert why


def test_a_test_sees_nothing_of_the_gateway_s_environment_and_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOE_GATEWAY_KEYS", "team:secret")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert shell('test -z "$MOE_GATEWAY_KEYS" && test "$HOME" = "$PWD"')[0]
    assert os.listdir(tmp_path) == []
