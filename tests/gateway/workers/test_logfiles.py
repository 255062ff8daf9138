"""Logs of workers: their end, as it may be shown, and their size."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.workers import logfiles


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "coder-0.log"


def write(log: Path, *lines: str) -> None:
    with logfiles.appended(log) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def test_a_log_is_for_its_owner_alone_and_goes_on_where_it_ended(log: Path) -> None:
    write(log, "one")
    write(log, "two")
    assert log.read_text() == "one\ntwo\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_last_lines_are_fit_for_a_terminal(log: Path) -> None:
    write(
        log,
        "old",
        "\x1b[31mred\x1b[0m\x07 and\ttab",
        "x" * 1000,
        "half \udc80".encode("utf-8", "surrogateescape").decode("latin-1"),
    )
    assert logfiles.tail(log, 3)[0] == "red and\ttab"
    assert len(logfiles.tail(log, 2)[0]) == logfiles.LINE_CHARACTERS
    assert logfiles.tail(log, 0x7FFF)[0] == "old"
    write(log, "\x9b2Jcleared \x9dtitle\x9c, \u202eturned\u2066 round")
    assert logfiles.tail(log, 1) == ["cleared title, turned round"]
    log.write_bytes(b"\xff\xfe broken")
    assert logfiles.tail(log, 1) == ["\ufffd\ufffd broken"]
    assert logfiles.tail(log.with_name("absent"), 3) == []


def test_only_what_was_written_since_counts_even_where_the_file_was_emptied(log: Path) -> None:
    write(log, "before")
    begin = log.stat().st_size
    write(log, "after")
    assert logfiles.tail(log, 5, begin) == ["after"]
    log.write_text("new\n")
    assert logfiles.tail(log, 5, begin) == ["new"]


def test_of_a_large_log_only_the_end_is_read_from_a_whole_line_on(log: Path) -> None:
    write(log, *(f"line {i:06d}" for i in range(60_000)))
    lines = logfiles.text(log).splitlines()
    assert lines[-1] == "line 059999"
    assert all(len(line) == len("line 000000") for line in lines)
    assert len(lines) < 30_000


def test_the_last_start_begins_where_the_keeper_says_so(log: Path) -> None:
    write(log, "keeper: starts vllm serve a", "error: first", "keeper: starts vllm serve b", "error: second")
    assert logfiles.last_start(log, 10) == ["keeper: starts vllm serve b", "error: second"]
    assert logfiles.last_start(log, 1) == ["error: second"]
    log.write_text("no start at all\n")
    assert logfiles.last_start(log, 5) == ["no start at all"]


def test_a_log_that_grows_is_put_aside_while_it_is_written_to_and_the_oldest_is_dropped(log: Path) -> None:
    with logfiles.appended(log) as file:
        for turn in range(4):
            file.write(f"part {turn} {'x' * 100}\n".encode())
            file.flush()
            assert logfiles.bound(log, 100)
        file.write(b"now\n")
    assert not logfiles.bound(log, 100)
    assert log.read_text() == "now\n"
    kept = sorted(path.name for path in log.parent.iterdir())
    assert kept == ["coder-0.log", "coder-0.log.1", "coder-0.log.2"]
    assert [(log.parent / name).read_text()[:6] for name in kept[1:]] == ["part 3", "part 2"]
    assert (log.parent / kept[1]).stat().st_mode & 0o777 == 0o600
    assert not logfiles.bound(log.with_name("absent"), 100)


def test_however_much_was_written_an_older_part_is_no_larger_than_two(log: Path) -> None:
    write(log, "old " * 1000 + "the end")
    assert logfiles.bound(log, 6)
    assert log.stat().st_size == 0
    assert log.with_name("coder-0.log.1").read_text() == "old the end\n"


def test_where_no_older_part_can_be_kept_the_log_is_emptied_all_the_same(log: Path) -> None:
    write(log, "too much")
    log.with_name("coder-0.log.1").symlink_to("/dev/full")
    log.with_name("coder-0.log.2").mkdir()
    assert logfiles.bound(log, 7)
    assert log.stat().st_size == 0


def test_who_writes_to_a_log_that_is_set_aside_goes_on_there(log: Path) -> None:
    with logfiles.appended(log) as file:
        file.write(b"old\n")
        file.flush()
        logfiles.set_aside(log)
        write(log, "new")
        file.write(b"old again\n")
    assert log.read_text() == "new\n"
    assert log.with_name("coder-0.log.1").read_text() == "old\nold again\n"
    logfiles.set_aside(log.with_name("absent"))
