from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.references import SECRET_BYTES, filled, is_file, secret, setting


@pytest.fixture(autouse=True, scope="module")
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "HOST": "gpu-1",
            "PORT": "8000\n",
            "EMPTY": " ",
            "KEY": "s3cr3t",
            "UMLAUT": "schlüssel",
        }.items():
            patch.setenv(name, value)
        patch.delenv("ABSENT", raising=False)
        yield


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("http://${HOST}:${PORT}/v1", "http://gpu-1:8000/v1"),
        ("${ABSENT:-spare}", "spare"),
        ("${EMPTY:-spare}", "spare"),
        ("${HOST:-spare}", "gpu-1"),
        ("${ABSENT:-}", ""),
        ("${ABSENT:-a:-b $x}", "a:-b $x"),
        ("$${HOST}", "${HOST}"),
        ("$$${HOST}", "$${HOST}"),
        ("$HOST $ {HOST} $$", "$HOST $ {HOST} $$"),
    ],
)
def test_what_stands_in_the_environment_is_put_in(text: str, value: str) -> None:
    assert filled(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a ${ABSENT}", "the environment variable ABSENT is not set"),
        ("${EMPTY}", "the environment variable EMPTY is empty"),
        ("${HOST", "${ begins a reference"),
        ("${}", "${ begins a reference"),
        ("${HOST-spare}", "${ begins a reference"),
        ("${user.name}", "for the two characters themselves write $${"),
        ("${ABSENT:-${HOST}}", "with no brace in the default"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        filled(text)
    assert says in str(caught.value)


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=100)
def test_every_text_can_be_written(text: str) -> None:
    assert filled(text.replace("${", "$${")) == text or "$${" in text


def test_a_secret_is_the_whole_of_a_variable_or_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("from-a-file\n", "utf-8")
    assert secret("${KEY}") == secret("${KEY:-}") == "s3cr3t"
    assert secret("${ABSENT:-}") is secret("${EMPTY:-}") is None
    assert secret(f"file:{path}") == "from-a-file"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hunter2", "a secret is never written here; name an environment variable, ${NAME}, or a file, file:PATH"),
        ("", "a secret is never written here"),
        (
            "${KEY:-hunter2}",
            "a secret is never written here, as a default neither; write ${NAME}, or ${NAME:-} for none",
        ),
        ("${KEY} hunter2", "a secret is never written here"),
        ("file://hunter2", "a secret is never written here"),
        ("${ABSENT}", "the environment variable ABSENT is not set"),
        ("${UMLAUT}", "the environment variable UMLAUT holds characters that no HTTP header can carry"),
        ("file:", "file: is followed by the path of a file"),
    ],
)
def test_a_secret_that_is_written_down_or_leads_nowhere_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        secret(text)
    assert str(caught.value).startswith(says)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_can_be_no_secret_is_told_and_nothing_of_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    wrong = {
        "empty": b"\n",
        "binary": b"hunter2\xff",
        "lines": b"hunter2\nhunter2\n",
        "long": b"x" * (SECRET_BYTES + 1),
    }
    for name, raw in wrong.items():
        (tmp_path / name).write_bytes(raw)
    said = {}
    for name in (*wrong, "absent", "pipe", "."):
        with pytest.raises(ValueError, match=r"\S") as caught:
            secret(f"file:{tmp_path / name}")
        said[name] = str(caught.value)
    assert said == {
        "empty": f"the file {tmp_path}/empty is empty",
        "binary": f"the file {tmp_path}/binary is no text in UTF-8",
        "lines": f"the file {tmp_path}/lines holds characters that no HTTP header can carry",
        "long": f"the file {tmp_path}/long is larger than 64 KiB, and so it was not read",
        "absent": f"the file {tmp_path}/absent is not there",
        "pipe": f"the file {tmp_path}/pipe is a pipe, a socket or a device, and no file",
        ".": f"the file {tmp_path} is a folder; name a file in it",
    }


def test_a_setting_may_be_written_and_may_be_a_reference(tmp_path: Path) -> None:
    path = tmp_path / "pem"
    path.write_text("two\nlines\n", "utf-8")
    assert [setting(text) for text in ("1", "${HOST}-x", "${ABSENT:-spare}", f"file:{path}", "file:///x")] == [
        "1",
        "gpu-1-x",
        "spare",
        "two\nlines",
        "file:///x",
    ]


@pytest.mark.parametrize(
    ("text", "answer"), [("file:a", True), ("file:/a", True), ("file://a", False), ("a file:b", False)]
)
def test_an_address_of_a_file_is_no_reference_to_one(text: str, answer: bool) -> None:
    assert is_file(text) is answer
