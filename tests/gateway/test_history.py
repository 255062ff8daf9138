"""What was served is kept, bounded, private, and survives damage and company."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import history as rooms
from gateway.history import History
from router.sources import Sources


def sources(main: Path, text: str, **others: str) -> Sources:
    return Sources(main, {main.name: text, **others})


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return tmp_path / "experts.yaml"


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "state" / "history")


def test_entries_are_told_newest_first_with_all_their_texts(history: History, main: Path) -> None:
    assert history.entries() == []
    history.record(sources(main, "one"), "d1", 10.0, "start")
    history.record(sources(main, "two", **{"sub/legal.txt": "a\n"}), "d2", 20.0)
    newest, oldest = history.entries()
    assert (newest.number, newest.at, newest.digest, newest.why) == (2, 20.0, "d2", "reload")
    assert newest.texts == {"experts.yaml": "two", "sub/legal.txt": "a\n"}
    assert newest.sources.place("sub/legal.txt") == main.parent / "sub/legal.txt"
    assert (oldest.number, oldest.why) == (1, "start")


def test_what_was_noted_last_is_not_noted_again_but_an_older_one_is(history: History, main: Path) -> None:
    for text in ("one", "one", "two", "one"):
        history.record(sources(main, text), text)
    assert [entry.digest for entry in history.entries()] == ["one", "two", "one"]


def test_two_files_of_one_folder_have_a_history_each(history: History, main: Path) -> None:
    other = main.with_name("other.yaml")
    for _ in range(2):
        history.record(sources(main, "one"), "m")
        history.record(sources(other, "one"), "o")
    assert [entry.digest for entry in history.entries(other)] == ["o"]
    assert len(history.entries()) == 2


def test_it_is_for_its_owner_alone(history: History, main: Path) -> None:
    history.record(sources(main, "one"), "d")
    assert history.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in history.folder.iterdir()} == {0o600}


def test_old_entries_go_by_number_and_by_size(history: History, main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "KEPT", 3)
    for number in range(6):
        history.record(sources(main, f"{number}"), f"{number}")
    assert [entry.digest for entry in history.entries()] == ["5", "4", "3"]
    monkeypatch.setattr(rooms, "MOST_BYTES", 5000)
    history.record(sources(main, "x" * 4000), "large")
    assert history.entries()[0].digest == "large"
    history.record(sources(main, "y" * 4000), "larger")
    assert [entry.digest for entry in history.entries()] == ["larger"]


ESCAPES = {"number": 1, "at": 1.0, "digest": "\x1b[2J", "why": "start", "main": "/x", "texts": {"experts.yaml": ""}}


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff\xfe", b"[1]", b'{"number": 1}', b"[" * 100_000, json.dumps(ESCAPES).encode()],
)
def test_damage_hides_one_entry_alone(history: History, main: Path, damage: bytes) -> None:
    history.record(sources(main, "one"), "one")
    history.record(sources(main, "two"), "two")
    path = history.folder / "000001.json"
    path.write_bytes(damage)
    (history.folder / "notes.json").write_text("somebody's")
    assert [entry.digest for entry in history.entries()] == ["two"]
    assert history.damaged() == [path]
    assert history.record(sources(main, "three"), "three").number == 3


def test_several_at_once_lose_nothing(history: History, main: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: history.record(sources(main, f"{n}"), f"{n}"), range(24)))
    assert {entry.digest for entry in history.entries()} == {f"{n}" for n in range(24)}
    assert [entry.number for entry in history.entries()] == list(range(24, 0, -1))


def test_a_disk_that_is_full_is_told_and_leaves_no_part(history: History, main: Path) -> None:
    history.record(sources(main, "one"), "one")
    code = (
        "import resource, sys; from pathlib import Path; from gateway.history import History; from router.sources import Sources\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "History(Path(sys.argv[1])).record(Sources(Path(sys.argv[2]), {'experts.yaml': 'x' * 5000}), 'd')"
    )
    told = subprocess.run([sys.executable, "-c", code, str(history.folder), str(main)], capture_output=True, text=True)
    assert "OSError" in told.stderr
    assert sorted(path.name for path in history.folder.iterdir()) == ["000001.json", "lock"]


@given(st.text())
def test_every_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("history")
    main = folder / "experts.yaml"
    History(folder / "h").record(sources(main, text), "d")
    assert History(folder / "h").entries()[0].sources.text == text


def test_bytes_that_are_no_text_come_back(history: History, main: Path) -> None:
    text = b"caf\xe9".decode("utf-8", "surrogateescape")
    history.record(sources(main, text), "", why="kept")
    assert history.entries()[0].sources.text.encode("utf-8", "surrogateescape") == b"caf\xe9"
