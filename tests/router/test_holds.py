from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from router.holds import Hold, remove_unheld

HOLDER = """
import sys
from pathlib import Path
from router.holds import Hold
hold = Hold([Path(sys.argv[1])])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["file", "folder"])
def thing(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file, or a folder with a file in it."""
    path = tmp_path / "thing"
    if request.param == "folder":
        path.mkdir()
    (path / "inside" if path.is_dir() else path).write_text("content", "utf-8")
    return path


def test_what_nobody_holds_is_removed(thing: Path) -> None:
    remove_unheld(thing)
    assert not thing.exists()


def test_what_is_held_stays_until_the_last_hold_is_gone(thing: Path) -> None:
    one, other = Hold([thing]), Hold([thing])
    remove_unheld(thing)
    assert thing.exists()
    del one
    remove_unheld(thing)
    assert thing.exists()
    del other
    remove_unheld(thing)
    assert not thing.exists()


def test_what_another_process_holds_stays_until_that_process_ends_however_it_ends(thing: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(thing)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        remove_unheld(thing)
        assert thing.exists()
        holder.kill()
    remove_unheld(thing)
    assert not thing.exists()


def test_who_tries_to_remove_what_is_held_keeps_nobody_from_holding_it_again(thing: Path) -> None:
    first = Hold([thing])
    remove_unheld(thing)
    second = Hold([thing])
    del first
    remove_unheld(thing)
    assert thing.exists()
    del second


def test_a_folder_is_held_apart_from_its_neighbours(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    hold = Hold([tmp_path / "a"])
    for name in ("a", "b"):
        remove_unheld(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    del hold


def test_what_is_not_there_can_be_neither_held_nor_removed_and_harms_no_other(thing: Path) -> None:
    hold = Hold([thing.with_name("nothing"), thing])
    remove_unheld(thing.with_name("nothing"))
    remove_unheld(thing)
    assert thing.exists()
    del hold


def test_a_link_to_a_folder_elsewhere_takes_nothing_with_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("content", "utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    remove_unheld(tmp_path / "link")
    assert (tmp_path / "elsewhere" / "file").is_file()
