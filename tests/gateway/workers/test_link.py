"""The line to the workers' owner, over a real Unix socket: what it tells, what is asked of it, and every way in which it goes."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

import msgspec
import pytest

from gateway.workers import link as links
from gateway.workers.link import Link, LinkedAddress, launched, launcher_of, launches
from gateway.workers.protocol import HungWorker, OwnerFile, Reread, Want, WorkerState, owner_file
from router.experts import ExpertsFile
from tests.fakes.memory import experts_file
from tests.fakes.owner import FakeOwner, facts, fake_owner
from tests.fakes.upstream import PATIENCE

READY = WorkerState.READY
URL = "http://127.0.0.1:9/v1"


def file(replicas: int = 2) -> ExpertsFile:
    launch = {"upstream": {"launch": {"engine": "vllm", "replicas": replicas}}}
    poet = {"upstream": {"worker": "coder", "adapter": {"name": "verse"}}}
    return experts_file({"coder": launch, "poet": poet, "other": {}})


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[FakeOwner]:
    with fake_owner(tmp_path, facts("coder-0", "ready", URL, api_key="k")) as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(links, "LONGEST_PAUSE_SECONDS", 0.02)
    # An owner that is there is heard before anything else is done.
    monkeypatch.setattr(links, "START_SECONDS", PATIENCE)


@pytest.fixture
def alone(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No owner is found at the start, and none is waited for."""
    monkeypatch.setattr(links, "START_SECONDS", 0.1)


@asynccontextmanager
async def linked(state: Path) -> AsyncIterator[Link]:
    link = Link(state)
    try:
        await link.start()
        yield link
    finally:
        await link.close()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - another thread is waited for
            await asyncio.sleep(0.005)


def test_the_workers_of_an_expert_are_its_own_or_those_of_another() -> None:
    assert launched("coder", file().experts["coder"]) == ["coder-0", "coder-1"]
    assert launched("other", file().experts["other"]) == []
    assert [found and found[0] for found in (launcher_of(file(), e) for e in file().experts)] == [
        "coder",
        "coder",
        None,
    ]
    assert launches(file())
    assert not launches(experts_file({"other": {}}))


async def test_an_address_is_known_while_its_worker_is_ready(owner: FakeOwner, tmp_path: Path) -> None:
    async with linked(tmp_path) as link:
        addresses = link.addresses(file())
        assert list(addresses) == ["coder-0", "coder-1"]
        first, second = addresses.values()
        assert (first.url, first.api_key, second.url) == (URL, "k", None)
        for state in WorkerState:
            owner.tell(facts("coder-0", state, URL, api_key="k"), facts("coder-1", "starting"))
            await until(partial(lambda state: first.state is state, state))
            assert (first.url, first.api_key) == ((URL, "k") if state is READY else (None, None))
        assert second.state is WorkerState.STARTING


async def test_a_name_has_the_same_address_in_every_file(owner: FakeOwner, tmp_path: Path) -> None:
    async with linked(tmp_path) as link:
        before = link.addresses(file(1))["coder-0"]
        owner.tell(facts("coder-1", "ready", "http://127.0.0.1:10/v1"))
        await until(lambda: "coder-1" in link.crew)
        after = link.addresses(file())
        assert after["coder-0"] is before
        assert after["coder-1"].url == "http://127.0.0.1:10/v1"


@pytest.mark.parametrize(
    "url", ["http://10.0.0.5:8000/v1", "http://evil.test/v1", "", None, "http://[::1/v1", "file:///etc"]
)
def test_a_worker_that_is_elsewhere_is_not_asked(url: str | None) -> None:
    address = LinkedAddress("coder-0")
    address.tell(facts("coder-0", "ready", url, api_key="k"))
    assert (address.url, address.api_key) == (None, None)


@pytest.mark.usefixtures("alone")
async def test_a_start_does_not_wait_for_an_owner_who_is_not_there_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(tmp_path) as link:
        address = link.addresses(file())["coder-0"]
        assert address.url is None
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert "workers up" in caplog.text
        with fake_owner(tmp_path, facts("coder-0", "ready", URL)):
            await until(lambda: address.url == URL)
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


async def test_an_owner_who_goes_takes_its_workers_along_and_one_who_comes_back_brings_them(
    owner: FakeOwner, tmp_path: Path
) -> None:
    async with linked(tmp_path) as link:
        heard: list[int] = []
        leave = link.listen(lambda: heard.append(len(link.crew)))
        address = link.addresses(file())["coder-0"]
        assert address.url == URL
        owner.leave()
        await until(lambda: address.url is None)
        assert address.state is None
        owner.open()
        await until(lambda: address.url == URL)
        assert heard == [0, 1]
        leave()
        leave()
        owner.tell(facts("coder-1", "starting"))
        await until(lambda: "coder-1" in link.crew)
        assert heard == [0, 1]


GARBAGE = [
    b"\n", b"{}\n", b"[]\n", b"null\n", b"\xff\xfe\x00\n", b"nonsense\n", b'{"type":"crew","digest":"x"}\n', b"[" * 5000 + b"\n",
    b'{"type":"crew","digest":"x","workers":[{"name":"coder-0","expert":"coder","state":"dancing","since":0}]}\n',
    b'{"type":"crew","digest":"x","workers":[{"name":1}]}\n', b'{"type":"want","expert":"x","waiting":1}\n',
]  # fmt: skip


@pytest.mark.parametrize("said", GARBAGE)
async def test_what_cannot_be_read_ends_that_line_and_not_the_gateway_s(
    owner: FakeOwner, tmp_path: Path, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(tmp_path) as link:
        address = link.addresses(file())["coder-0"]
        owner.say(said)
        await until(lambda: "cannot be understood" in caplog.text)
        await until(lambda: address.url == URL)
        assert "dancing" not in caplog.text


async def test_a_line_without_an_end_is_not_kept(
    owner: FakeOwner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "MAX_LINE", 10_000)
    async with linked(tmp_path) as link:
        address = link.addresses(file())["coder-0"]
        gone: list[bool] = []
        link.listen(lambda: gone.append(address.url is None))
        owner.say(b"x" * 50_000)
        await until(lambda: True in gone)
        await until(lambda: address.url == URL)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]", b'{"socket": 3, "pid": 1}', b'{"socket": "/nowhere", "pid": 1}',
                                     b'{"socket": "", "pid": 1}', b'{"socket": "a\\u0000b", "pid": 1}',
                                     b'{"socket": "' + b"x" * 3000 + b'", "pid": 1}', b" " * 100_000])  # fmt: skip
async def test_a_file_of_the_owner_s_that_says_nothing_is_looked_at_again(tmp_path: Path, content: bytes) -> None:
    place = owner_file(tmp_path)
    place.parent.mkdir()
    place.write_bytes(content)
    async with linked(tmp_path) as link:
        address = link.addresses(file())["coder-0"]
        with fake_owner(tmp_path, facts("coder-0", "ready", URL)):
            await until(lambda: address.url == URL)


@pytest.mark.usefixtures("alone")
async def test_a_file_that_others_could_have_written_or_that_is_none_is_not_followed(
    owner: FakeOwner, tmp_path: Path
) -> None:
    place = owner_file(tmp_path)
    place.chmod(0o666)
    async with linked(tmp_path):
        assert owner.connections == 0
    place.unlink()
    os.mkfifo(place)
    async with linked(tmp_path):
        assert owner.connections == 0


@pytest.mark.usefixtures("alone")
async def test_the_file_of_one_who_was_killed_is_no_owner(owner: FakeOwner, tmp_path: Path) -> None:
    owner.leave()
    async with linked(tmp_path) as link:
        assert link.addresses(file())["coder-0"].url is None


async def test_one_who_takes_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MAX_UNSENT", 1000)
    monkeypatch.setattr(links, "GATHER_SECONDS", 0.0)
    served = 0

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        writer.write(b'{"type":"crew","digest":"x","workers":[]}\n')
        try:
            await asyncio.sleep(60)
        finally:
            writer.close()

    place, socket = owner_file(tmp_path), str(tmp_path / "s")
    server = await asyncio.start_unix_server(deaf, socket)
    place.parent.mkdir()
    place.write_bytes(msgspec.json.encode(OwnerFile(socket, 1)))
    async with linked(tmp_path) as link:
        async with asyncio.timeout(PATIENCE):
            for i in count():
                link.waiting("e" * 10_000, i)
                await asyncio.sleep(0.002)
                if served > 1:
                    break
    server.close()


async def test_a_worker_that_hangs_is_told_with_the_url_that_it_had(owner: FakeOwner, tmp_path: Path) -> None:
    async with linked(tmp_path) as link:
        first, second = link.addresses(file()).values()
        second.kill()  # it is not up
        first.kill()
        await until(lambda: owner.asked)
        assert owner.asked == [HungWorker("coder-0", URL)]


async def test_what_is_wanted_is_said_together_and_only_what_changed(owner: FakeOwner, tmp_path: Path) -> None:
    async with linked(tmp_path) as link:
        for i in range(100):
            link.waiting("coder", i)
        link.waiting("math", 1)
        link.waiting("math", 0)
        link.expect("coder", 0.5)
        await until(lambda: owner.asked)
        link.waiting("coder", 0)
        await until(lambda: len(owner.asked) > 1)
        assert owner.asked == [Want("coder", 99, 0.5), Want("coder", 0, 0.5)]


async def test_a_new_owner_hears_of_what_is_still_wanted(owner: FakeOwner, tmp_path: Path) -> None:
    async with linked(tmp_path) as link:
        link.waiting("coder", 2)
        await until(lambda: owner.wants("coder") == [2])
        owner.leave()
        await until(lambda: not link.crew)
        link.waiting("math", 3)
        owner.open()
        await until(lambda: (owner.wants("coder"), owner.wants("math")) == ([2, 2], [3]))


async def test_who_went_elsewhere_wants_it_until_it_is_awake(owner: FakeOwner, tmp_path: Path) -> None:
    owner.tell(facts("coder-0", "asleep"))
    async with linked(tmp_path) as link:
        link.wish("coder")
        link.wish("coder")
        link.waiting("coder", 1)
        await until(lambda: owner.wants("coder") == [3])
        owner.tell(facts("coder-0", "waking"))
        await until(lambda: link.crew["coder-0"].state is WorkerState.WAKING)
        owner.tell(facts("coder-0", "ready", URL))
        await until(lambda: owner.wants("coder") == [3, 1])


async def test_a_wish_is_not_for_ever(owner: FakeOwner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "WISH_SECONDS", 0.1)
    owner.tell(facts("coder-0", "asleep"))
    async with linked(tmp_path) as link:
        link.wish("coder")
        await until(lambda: owner.wants("coder") == [1, 0])


async def test_another_file_is_read_by_the_owner_of_today_or_of_tomorrow(owner: FakeOwner, tmp_path: Path) -> None:
    async with linked(tmp_path) as link:
        link.reread()
        await until(lambda: owner.asked == [Reread()])
        owner.leave()
        await until(lambda: not link.crew)
        link.reread()
        owner.open()
        await until(lambda: owner.asked == [Reread(), Reread()])


async def test_one_listener_s_fault_is_not_the_others(owner: FakeOwner, tmp_path: Path) -> None:
    async with linked(tmp_path) as link:
        heard: list[str] = []

        def fail() -> None:
            raise KeyError

        link.listen(fail)
        link.listen(lambda: heard.append("me"))
        owner.tell(facts("coder-1", "starting"))
        await until(lambda: heard)
        assert link.addresses(file())["coder-1"].state is WorkerState.STARTING
