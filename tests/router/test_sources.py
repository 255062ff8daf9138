"""Sources: whatever stands in a configuration's place is read, or refused in words; it never hangs and never crashes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.sources import MAX_BYTES, Sources, read_sources


def problem(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_sources(path)
    assert len(caught.value.problems) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("version: 1\n".encode("utf-16"), "f.yaml:1:1: is written in UTF-16 or UTF-32; save it as UTF-8"),
        ("version: 1\n".encode("utf-16-le"), "f.yaml:1:1: is written in UTF-16 or UTF-32; save it as UTF-8"),
        ("version: 1\n".encode("utf-16-be"), "f.yaml:1:1: is written in UTF-16 or UTF-32; save it as UTF-8"),
        ("version: 1\n".encode("utf-32"), "f.yaml:1:1: is written in UTF-16 or UTF-32; save it as UTF-8"),
        (
            "a: 1\nb: Zürich".encode("latin-1"),
            "f.yaml:2:5: byte 0xfc is not UTF-8 (Latin-1 perhaps); save the file as UTF-8",
        ),
        (b"a: 1\nname: \xe2\x82", "f.yaml:2:7: byte 0xe2 is not UTF-8 (Latin-1 perhaps); save the file as UTF-8"),
        (b"a: 1\nb: x\0y\n", "f.yaml:2:5: a NUL stands here; this is no text"),
        (b"# " + b"x" * MAX_BYTES, f"f.yaml:1:1: is larger than {MAX_BYTES // 1024} KiB and was not read"),
    ],
)
def test_bytes_that_are_no_text_are_refused_at_their_place(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(raw)
    assert problem(path) == said


def test_ten_megabytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    with path.open("wb") as file:
        file.truncate(10_000_000)  # NULs, were they read
    assert "is larger than" in problem(path)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    assert problem(tmp_path) == f"{tmp_path.name}:1:1: is a folder; name a file in it"
    assert "is a pipe, a socket or a device" in problem(tmp_path / "pipe")
    assert "is a pipe, a socket or a device" in problem(Path("/dev/zero"))
    assert "leads back to itself" in problem(tmp_path / "loop")
    assert "a part of its path is no folder" in problem(tmp_path / "file" / "f.yaml")
    assert "is not there" in problem(tmp_path / "absent.yaml")
    assert "its name is too long" in problem(tmp_path / ("x" * 300))


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.touch(mode=0o000)
    assert problem(path) == "f.yaml:1:1: cannot be read: permission denied"


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfversion: 1\n")
    assert read_sources(path) == Sources(path, {"f.yaml": "version: 1\n"})


def test_the_digest_is_of_every_text_and_where_it_stands() -> None:
    def digest(**texts: str) -> str:
        return Sources(Path("a"), texts).digest

    assert digest(a="1", b="2") == digest(a="1", b="2")
    others = [digest(a="1"), digest(a="1", b="2"), digest(a="1", b="3"), digest(a="1", c="2"), digest(a="12", b="")]
    assert len(set(others)) == len(others)
