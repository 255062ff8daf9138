from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.jsonlines import line, read
from gateway.messages import Answer, Asked, Hung, Kept, Lent, News, Ready, Serve, Served, Setup, Told, Workers, lent
from gateway.reloading.status import Progress, Reloaded, Status
from gateway.settings import Settings
from gateway.workers.lent import LentWorker
from router.sources import Sources

TEXT = st.text(max_size=20)
LENT = st.dictionaries(TEXT, st.builds(Lent, TEXT | st.none(), TEXT | st.none()), max_size=3)
PATHS = st.text("abc/é \n", min_size=1, max_size=10).map(Path)
SETTINGS = st.builds(
    Settings,
    config=PATHS,
    uds=st.none() | PATHS,
    tls_key=st.none() | PATHS,
    keys=st.dictionaries(TEXT, TEXT, max_size=3),
    port=st.integers(0, 65535),
    drain_delay=st.floats(0, 1e6),
    max_connections=st.none() | st.integers(1, 9),
)
NAMES = st.lists(TEXT, max_size=2).map(tuple)
SOURCES = st.builds(Sources, PATHS, st.dictionaries(TEXT, TEXT, min_size=1, max_size=3), NAMES)
PROGRESS = st.none() | st.builds(Progress, TEXT, st.integers(0, 9), st.integers(0, 9))
STATUS = st.builds(
    Status, config=TEXT, router=TEXT, since=st.floats(0, 1e9), files=NAMES, problems=NAMES, progress=PROGRESS
)
RELOADED = st.builds(Reloaded, st.sampled_from(["reloaded", "unchanged"]), TEXT, NAMES, NAMES, NAMES)
PROBLEMS = st.lists(TEXT, max_size=2)
SETUPS = st.builds(Setup, st.integers(0, 99), SETTINGS, SOURCES, st.lists(st.integers(0, 99), max_size=3), LENT)
NEWS = st.one_of(
    st.builds(Workers, LENT),
    st.builds(Serve, SOURCES, TEXT, PATHS),
    st.builds(Kept, STATUS, st.sampled_from([None, "ok", "failed"])),
    st.builds(Answer, st.integers(0, 9), st.none() | RELOADED, st.just("invalid_config"), PROBLEMS),
)
TOLD = st.one_of(
    st.builds(Ready, TEXT, PATHS, PROBLEMS),
    st.builds(Hung, TEXT, TEXT),
    st.builds(Asked, st.integers(0, 9), st.booleans()),
    st.builds(Served, TEXT, PROBLEMS),
)
MESSAGES = st.one_of(SETUPS, NEWS, TOLD)


@given(MESSAGES)
def test_every_message_is_one_line_and_arrives_as_it_was(message: Setup | News | Told) -> None:
    written = line(message)
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    kind = Told if isinstance(message, Told) else News if isinstance(message, News) else Setup
    assert read(written, kind) == message


@pytest.mark.parametrize("text", [b"", b"{}", b"null", b'{"type": "hung"}', b'{"type": "mad"}'])
def test_what_is_no_message_is_refused(text: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        read(text, Told)


async def test_a_lent_worker_is_where_the_parent_says() -> None:
    hung: list[tuple[str, str]] = []
    worker = LentWorker("smollm2", lambda name, url: hung.append((name, url)))
    worker.kill()
    assert hung == []  # there is nothing to end yet
    worker.tell("http://127.0.0.1:1/v1", "key")
    await worker.start()
    assert lent({"smollm2": worker}) == {"smollm2": Lent("http://127.0.0.1:1/v1", "key")}
    worker.kill()
    assert hung == [("smollm2", "http://127.0.0.1:1/v1")]
    worker.tell(None, "key")
    assert worker.url is None
    await worker.stop()
