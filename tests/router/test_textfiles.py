from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.textfiles import UnreadableError, read_text

MOST = 4096


def is_open(path: Path) -> bool:
    """Whether this process has it open. What else it has open may change at any time: other threads do, and the collector."""
    there = path.stat()
    for descriptor in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # one that listed them
            if os.path.samestat(os.fstat(int(descriptor)), there):
                return True
    return False


def refusal(path: Path) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        read_text(path, MOST)
    return caught.value


@pytest.mark.parametrize(
    ("raw", "says", "place"),
    [
        ("version: 1\n".encode("utf-16"), "is in UTF-16, UTF-32 or no text at all; save it as UTF-8", (1, 1)),
        ("version: 1\n".encode("utf-16-le"), "is in UTF-16, UTF-32 or no text at all; save it as UTF-8", (1, 1)),
        ("version: 1\n".encode("utf-16-be"), "is in UTF-16, UTF-32 or no text at all; save it as UTF-8", (1, 1)),
        ("version: 1\n".encode("utf-32"), "is in UTF-16, UTF-32 or no text at all; save it as UTF-8", (1, 1)),
        ("a: 1\nb: Zürich".encode("latin-1"), "is not in UTF-8: there is a byte 0xfc here", (2, 5)),
        ("ü: 1\nname: ".encode() + b"\xe2\x82", "is not in UTF-8: there is a byte 0xe2 here", (2, 7)),
        ("ü: 1\nb: x\0y\n".encode(), "is no text: there is a NUL here", (2, 5)),
        (b"# " + b"x" * MOST, "is larger than 4 KiB, and so it was not read", None),
    ],
)
def test_bytes_that_are_no_text_are_refused_at_their_place(
    tmp_path: Path, raw: bytes, says: str, place: tuple[int, int] | None
) -> None:
    path = tmp_path / "some.yaml"
    path.write_bytes(raw)
    error = refusal(path)
    assert (str(error)[: len(says)], error.place) == (says, place)


def test_as_much_as_is_allowed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_bytes(b"x" * MOST)
    assert read_text(path, MOST) == "x" * MOST


def test_of_a_file_without_end_no_more_is_read_than_tells_that_it_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # holes, which take no room on the disk: memory would
    assert "is larger than" in str(refusal(path))


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_bytes(b"\xef\xbb\xbfversion: 1\r\n")
    assert read_text(path, MOST) == "version: 1\r\n"


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    said = {
        tmp_path: "is a folder; name a file in it",
        tmp_path / "pipe": "is a pipe, a socket or a device, and no file",
        Path("/dev/zero"): "is a pipe, a socket or a device, and no file",
        tmp_path / "loop": "is a symbolic link that leads back to itself",
        tmp_path / "file" / "some.yaml": "is not there: a part of its path is no folder",
        tmp_path / "absent.yaml": "is not there",
        tmp_path / ("x" * 300): "is not there: its name is too long",
        tmp_path / "a\0b": "is not there: no file has such a name",
    }
    assert {path: str(refusal(path)) for path in said} == said


def test_whatever_becomes_of_a_file_it_is_closed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(b"x" * (MOST + 1))
    for name in (".", "pipe", "long", "absent"):
        refusal(tmp_path / name)
    assert not any(is_open(tmp_path / name) for name in (".", "pipe", "long"))
    with (tmp_path / "long").open("rb"):
        assert is_open(tmp_path / "long")


def test_a_file_that_may_not_be_read_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.touch(mode=0o000)
    root = os.geteuid() == 0  # who may read everything
    if root:
        os.seteuid(65534)
    try:
        assert str(refusal(path)) == "cannot be read: permission denied"
    finally:
        if root:
            os.seteuid(0)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=100)
def test_any_bytes_are_a_text_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    with contextlib.suppress(UnreadableError):
        assert "\0" not in read_text(path, MOST)
