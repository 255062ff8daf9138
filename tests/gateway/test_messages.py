from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import Hung, Lent, News, Ready, Reloaded, Setup, Told, lent, line, read
from gateway.settings import Settings
from gateway.workers.lent import LentWorker

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
MESSAGES = st.one_of(
    st.builds(Setup, st.integers(0, 99), SETTINGS, TEXT, st.lists(st.integers(0, 99), max_size=3), LENT),
    st.builds(News, LENT),
    st.builds(Ready, st.lists(TEXT, max_size=2)),
    st.builds(Hung, TEXT, TEXT),
    st.builds(Reloaded, TEXT),
)


@given(MESSAGES)
def test_every_message_is_one_line_and_arrives_as_it_was(message: Setup | News | Told) -> None:
    written = line(message)
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    assert read(written, Told if isinstance(message, Told) else type(message)) == message


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
