"""The owner: alone with its state folder, reached over a socket, and deaf to nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.workers.launching import CREW_VARIABLE, Place
from gateway.workers.owner import MOST_LINE, OwnedError, Owner, owned
from gateway.workers.protocol import (
    Board,
    Crew,
    Down,
    HungWorker,
    Look,
    OwnerFile,
    Reread,
    Want,
    WorkerState,
    line,
    owner_file,
    read_owner,
    read_told,
)
from gateway.workers.reaching import reached
from gateway.workers.remains import KEEPER
from router.experts import load_experts
from tests.fakes.vllm_environment import PATIENCE, alive, launches, notes, soon, write_experts

Begin = Callable[..., Awaitable[Owner]]
Connect = Callable[[], Awaitable["Client"]]


@pytest.fixture
async def begin(place: Place, tmp_path: Path) -> AsyncIterator[Any]:
    """await begin(experts) runs an owner until the test ends."""
    async with AsyncExitStack() as stack:

        async def made(experts: dict[str, dict[str, Any]]) -> Owner:
            config = write_experts(tmp_path / "experts.yaml", experts)
            stack.enter_context(owned(place.state))
            owner = Owner(config, load_experts(config), place)
            await owner.start()
            stack.push_async_callback(owner.stop)
            return owner

        yield made


class Client:
    """A gateway, as far as the owner sees."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def hear(self) -> Crew | Board:
        async with asyncio.timeout(PATIENCE):
            return read_told(await self.reader.readline())

    async def crew(self, name: str, state: WorkerState) -> Crew:
        """The first word that the worker is in that state."""
        while True:
            told = await self.hear()
            if isinstance(told, Crew) and any(f.name == name and f.state is state for f in told.workers):
                return told

    def say(self, text: bytes) -> None:
        self.writer.write(text)

    async def left(self) -> bool:
        """Whether the owner hangs up."""
        async with asyncio.timeout(PATIENCE):
            await self.reader.read()
        return True


@pytest.fixture
async def connect(state: Path) -> AsyncIterator[Any]:
    """await connect() is one more client."""
    clients: list[Client] = []

    async def made() -> Client:
        about = msgspec.json.decode(owner_file(state).read_bytes(), type=OwnerFile)
        clients.append(Client(*await asyncio.open_unix_connection(about.socket)))
        return clients[-1]

    yield made
    for client in clients:
        client.writer.close()
        with contextlib.suppress(OSError):
            await client.writer.wait_closed()


async def test_it_is_reached_by_its_user_alone_and_tells_every_change(
    begin: Begin, connect: Connect, state: Path
) -> None:
    await begin({"a": {"upstream": launches({"load": 0.2})}})
    about = msgspec.json.decode(owner_file(state).read_bytes(), type=OwnerFile)
    assert about.pid == os.getpid()
    assert owner_file(state).stat().st_mode & 0o777 == 0o600
    assert Path(about.socket).parent.stat().st_mode & 0o777 == 0o700
    assert len(about.socket) < 108
    client, other = await connect(), await connect()
    first = await client.hear()
    assert isinstance(first, Crew)
    assert first.workers[0].state is WorkerState.STARTING
    ready = (await client.crew("a-0", WorkerState.READY)).workers[0]
    assert ready.url is not None
    assert ready.api_key is not None
    assert await other.crew("a-0", WorkerState.READY)
    client.say(line(HungWorker("a-0", ready.url)))
    assert (await other.crew("a-0", WorkerState.FAILED)).workers[0].url is None
    await client.crew("a-0", WorkerState.READY)


async def test_what_a_gateway_wanted_is_forgotten_with_it(begin: Begin, connect: Connect, state: Path) -> None:
    await begin({"a": {"sleep_after": "200ms", "upstream": launches()}})
    client, watcher = await connect(), await connect()
    client.say(line(Want("a", 1)))
    await watcher.crew("a-0", WorkerState.READY)
    await asyncio.sleep(0.6)
    client.writer.close()
    await watcher.crew("a-0", WorkerState.ASLEEP)


async def test_one_that_talks_nonsense_is_left_and_the_others_are_not(
    begin: Begin, connect: Connect, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await begin({"a": {"upstream": launches()}})
    watcher = await connect()
    for text in (b"\n", b"{}\n", b'{"type": "want"}\n', b"\xff\n", b"[" * 5000 + b"\n", b"x" * (2 * MOST_LINE)):
        client = await connect()
        client.say(text)
        assert await client.left()
    await watcher.crew("a-0", WorkerState.READY)
    watcher.say(line(Want("nobody", 3)) + line(HungWorker("nobody", "x")) + line(Look()))
    while not isinstance(told := await watcher.hear(), Board):
        pass
    assert told.rows[0].facts.api_key is None
    assert told.rows[0].facts.state is WorkerState.READY
    assert [record for record in caplog.records if record.name == "asyncio"] == []  # it is no fault of ours


async def test_another_file_is_followed_when_it_is_said_and_a_bad_one_is_not(
    begin: Begin, connect: Connect, state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owner = await begin({"a": {"upstream": launches()}})
    client = await connect()
    digest = owner.crew.digest
    (tmp_path / "experts.yaml").write_text("version: 2")
    client.say(line(Reread()))
    async with asyncio.timeout(PATIENCE):
        while "not followed" not in caplog.text:  # noqa: ASYNC110 - it is read in a thread, and told to nobody
            await asyncio.sleep(0.01)
    assert owner.crew.digest == digest
    assert [getattr(r, "why", "") for r in caplog.records if "not followed" in r.message] == [
        "experts.yaml:1:1: experts: expected one entry or more under experts:"
    ]
    write_experts(tmp_path / "experts.yaml", {"a": {"upstream": launches()}, "b": {"upstream": launches()}})
    client.say(line(Reread()) + line(Reread()))
    told = await client.crew("b-0", WorkerState.READY)
    assert told.digest == owner.crew.digest != digest
    assert [facts.name for facts in told.workers] == ["a-0", "b-0"]


async def test_asked_to_go_it_says_so_and_leaves_nothing(begin: Begin, connect: Connect, state: Path) -> None:
    owner = await begin({"a": {"upstream": launches()}})
    client = await connect()
    await client.crew("a-0", WorkerState.READY)
    folder = Path(msgspec.json.decode(owner_file(state).read_bytes(), type=OwnerFile).socket).parent
    client.say(line(Down()))
    await owner.until_down()
    await owner.stop()
    await client.crew("a-0", WorkerState.STOPPING)
    assert await client.left()
    assert not owner_file(state).exists()
    assert not folder.exists()
    assert alive(state) == []


async def test_one_that_does_not_listen_is_left(
    begin: Begin, connect: Connect, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.workers.owner.MOST_UNSENT", 1000)
    owner = await begin({"a": {"upstream": launches()}})
    client = await connect()
    await client.crew("a-0", WorkerState.READY)
    assert len(owner.clients) == 1
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(20_000):
        owner.tell()
        if not owner.clients:
            break
        await asyncio.sleep(0)
    assert not owner.clients
    client.writer.transport.abort()


def test_a_state_folder_has_one_owner(state: Path) -> None:
    with owned(state):
        with pytest.raises(OwnedError, match=r"up already.*workers status"), owned(state):
            pass
        program = (
            f"from pathlib import Path\nfrom gateway.workers.owner import owned\nwith owned(Path({str(state)!r})): pass"
        )
        assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 1
    with owned(state):
        pass


async def test_what_an_owner_left_that_was_killed_is_tidied_up(
    begin: Begin, connect: Connect, state: Path, tmp_path: Path, environment: Path
) -> None:
    folder = tmp_path / "moe-workers-old"
    folder.mkdir()
    owner_file(state).parent.mkdir(parents=True)
    owner_file(state).write_bytes(msgspec.json.encode(OwnerFile(str(folder / "owner"), 1)))
    with reached(state) as nobody:
        assert nobody is None
    # An engine whose server, keeper and owner are gone; and a keeper that is about to end what it keeps.
    mark = {
        **os.environ,
        CREW_VARIABLE: str(state),
        "FAKE_VLLM": json.dumps({"record": str(tmp_path / "record"), "drains": 0.5}),
    }
    engine = subprocess.Popen(
        [sys.executable, "-IS", "-c", "import time; time.sleep(600)"], env=mark, start_new_session=True
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    words = [str(environment / "bin" / "vllm"), "serve", "m", "--served-model-name", "m", "--port", port]
    with (tmp_path / "kept.log").open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-IS", str(KEEPER), port, "30", *words], env=mark, stdin=subprocess.PIPE, stderr=log
        )
    bystander = subprocess.Popen([sys.executable, "-IS", "-c", "import time; time.sleep(600)"])
    try:
        assert await asyncio.to_thread(soon, lambda: notes(tmp_path / "record", "engines"))
        assert keeper.stdin is not None
        keeper.stdin.close()
        await begin({"a": {"upstream": launches()}})
        assert engine.pid not in {process.pid for process in alive(state)}
        assert "drained and gone" in (tmp_path / "kept.log").read_text()  # it had the time to end in its own way
        assert bystander.poll() is None
        assert not folder.exists()
    finally:
        for process in (engine, keeper, bystander):
            process.kill()
            process.wait()


def test_an_owner_file_of_nonsense_is_no_owner(state: Path) -> None:
    owner_file(state).parent.mkdir(parents=True)
    for text in ("", "{}", '{"socket": "/nowhere", "pid": 1}', '{"socket": 5, "pid": 1}', "\x00" * 9000):
        owner_file(state).write_text(text)
        with reached(state) as owner:
            assert owner is None


@pytest.mark.parametrize("what", ["fifo", "others"])
def test_an_owner_file_that_others_could_have_written_holds_nobody_up(state: Path, what: str) -> None:
    place = owner_file(state)
    place.parent.mkdir(parents=True, exist_ok=True)
    if what == "fifo":
        os.mkfifo(place, 0o600)
    else:
        place.write_text('{"socket": "/tmp/x", "pid": 1}')
        place.chmod(0o666)
    with pytest.raises(ValueError, match="others could"):
        read_owner(state)
    with reached(state) as owner:
        assert owner is None
