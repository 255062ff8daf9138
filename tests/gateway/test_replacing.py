"""Files are replaced whole or not at all, also where the system refuses."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.replacing import replace_file, replace_files


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user whom modes bind: they do not bind root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def folder_of(mode: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.yaml").write_text("old\n")
        folder.chmod(mode)
        yield folder
        folder.chmod(0o700)


def test_mode_link_and_line_ends_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.yaml", tmp_path / "a.yaml"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to("real/a.yaml")
    replace_file(link, "new\r\nnew\udcff")
    assert link.is_symlink()
    assert target.read_bytes() == b"new\r\nnew\xff"
    assert target.stat().st_mode & 0o777 == 0o640
    assert os.listdir(target.parent) == ["a.yaml"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    os.chown(tmp_path / "a", 1234, 4321)
    replace_file(tmp_path / "a", "new")
    there = (tmp_path / "a").stat()
    assert (there.st_uid, there.st_gid) == (1234, 4321)


def test_a_new_file_has_the_mode_that_new_files_have(tmp_path: Path) -> None:
    replace_file(tmp_path / "made", "by us")
    (tmp_path / "other").write_text("by anyone")
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_folder_that_may_only_be_read_is_told_with_what_it_means() -> None:
    with folder_of(0o555) as folder:
        with as_nobody(), pytest.raises(PermissionError) as refused:
            replace_file(folder / "a.yaml", "new")
        assert refused.value.filename == str(folder / "a.yaml")
        assert "nothing was written: a file is replaced by a new one beside it" in str(refused.value)
        assert (folder / "a.yaml").read_text() == "old\n"


def test_a_link_in_such_a_folder_leads_to_one_that_may_be_written() -> None:
    with folder_of(0o777) as real, folder_of(0o755) as linked:
        (linked / "link.yaml").symlink_to(real / "a.yaml")
        linked.chmod(0o555)
        with as_nobody():
            replace_file(linked / "link.yaml", "new")
        assert (real / "a.yaml").read_text() == "new"


def test_of_several_files_none_is_replaced_where_one_cannot_be(tmp_path: Path) -> None:
    """The last is a folder, which shows only when the others stand in their places already."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"old {name}")
    (tmp_path / "c").mkdir()
    wanted = {tmp_path / name: f"new {name}" for name in ("a", "b", "made", "c")}
    with pytest.raises(OSError, match="nothing was written") as refused:
        replace_files(wanted)
    assert refused.value.filename == str(tmp_path / "c")
    assert (tmp_path / "a").read_text() == "old a"
    assert (tmp_path / "b").read_text() == "old b"
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


MOUNTED = """
mount --bind real a.yaml
python -c '
from pathlib import Path
from gateway.replacing import replace_file, replace_files
replace_file(Path("a.yaml"), "new")
assert Path("a.yaml").read_text() == "new"
try:
    replace_files({Path("a.yaml"): "newer", Path("folder"): "x"})
except OSError:
    assert Path("a.yaml").read_text() == "new"
else:
    raise AssertionError
'
"""
APART = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*APART, "true"], capture_output=True).returncode != 0,
    reason="nobody may mount here",
)
def test_what_stands_where_the_old_one_would_be_kept_is_not_written_into(tmp_path: Path) -> None:
    """A link that somebody laid there, or what a process left that was killed."""
    one, other, victim = (tmp_path / name for name in ("a", "b", "victim"))
    for path in (one, other, victim):
        path.write_text("old")
    laid = one.with_name(f".a.kept-{os.getpid()}")
    laid.symlink_to(victim)
    replace_files({one: "new", other: "new"})
    assert (one.read_text(), other.read_text(), victim.read_text()) == ("new", "new", "old")
    assert laid.is_symlink()
    assert sorted(os.listdir(tmp_path)) == [laid.name, "a", "b", "victim"]


def test_a_file_that_is_mounted_by_itself_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old, and longer")
    (tmp_path / "a.yaml").touch()
    (tmp_path / "folder").mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    told = subprocess.run([*APART, "sh", "-ec", MOUNTED], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "real").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["a.yaml", "folder", "real"]


def test_a_disk_that_is_full_leaves_all_as_it_was(tmp_path: Path) -> None:
    """No file may grow beyond 1 kB: the second text is larger."""
    (tmp_path / "a").write_text("old a")
    (tmp_path / "b").write_text("old b")
    code = (
        "import sys; from pathlib import Path; from gateway.replacing import replace_files; folder = Path(sys.argv[1])\n"
        "replace_files({folder / 'a': 'new', folder / 'b': 'x' * 5000})"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert "File too large; nothing was written" in told.stderr
    assert (tmp_path / "a").read_text() == "old a"
    assert (tmp_path / "b").read_text() == "old b"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
