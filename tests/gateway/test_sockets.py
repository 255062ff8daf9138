from __future__ import annotations

import os
import resource
import socket
import stat
from contextlib import closing, suppress
from pathlib import Path

import pytest

from gateway.errors import SettingsError
from gateway.settings import Settings
from gateway.sockets import bound, connections_allowed, named, own

EVERY_V4 = "0.0.0.0"  # noqa: S104 - bound for a moment, never listened on


def port_of(made: socket.socket) -> int:
    return int(made.getsockname()[1])


def test_a_socket_is_bound_before_it_listens() -> None:
    with bound(Settings(port=0)) as (made,):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(made.getsockname())
        made.listen()
        socket.create_connection(made.getsockname()).close()
    assert made.fileno() == -1


def test_the_port_that_the_system_chose_is_known() -> None:
    with bound(Settings(port=0)) as made:
        assert named(Settings(port=0), made).port == port_of(made[0]) > 0


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("other", [1, 2], ids=["beside one process", "beside several"])
def test_a_port_in_use_is_told_with_what_to_do(processes: int, other: int) -> None:
    """Also where both would share it: two gateways must not take each other's connections."""
    with bound(Settings(port=0, processes=other)) as (held,):
        listening = own(held.dup()) if other > 1 else held
        listening.listen()
        settings = Settings(port=port_of(held), processes=processes)
        with (
            pytest.raises(SettingsError, match=f"port {settings.port}: Address already in use.*--port"),
            bound(settings),
        ):
            pass
        listening.close()


def test_a_name_gets_a_socket_for_each_of_its_addresses_on_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ("127.0.0.1", "127.0.0.2", "127.0.0.1")]
    answers.insert(1, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)))  # not of this machine
    monkeypatch.setattr("gateway.sockets.socket.getaddrinfo", lambda *_, **__: answers[:3])
    with bound(Settings(host="localhost", port=0)) as made:
        assert [m.getsockname()[0] for m in made] == ["127.0.0.1", "127.0.0.2"]
        assert len({port_of(m) for m in made}) == 1


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "", "a" * 300, "exa mple"])
def test_an_address_that_is_not_ours_is_told_in_one_line(host: str) -> None:
    with (
        pytest.raises(SettingsError, match=r"is not an address of this machine|cannot listen on") as caught,
        bound(Settings(host=host, port=0)),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_every_address_of_ipv6_is_every_one_of_ipv4_as_well() -> None:
    if not Path("/proc/net/if_inet6").exists():
        with pytest.raises(SettingsError), bound(Settings(host="::", port=0)):
            pass
        return
    for host, alone in (("::", 0), ("::1", 1)):
        with bound(Settings(host=host, port=0)) as (made,):
            assert made.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == alone


def test_each_of_several_processes_listens_by_itself_and_the_parent_not_at_all() -> None:
    with bound(Settings(port=0, processes=2)) as (held,):
        first, second = own(held.dup()), own(held.dup())
        with closing(first), closing(second):
            assert first.getsockname() == second.getsockname() == held.getsockname()
            for made in (first, second):
                made.listen(128)
                made.settimeout(0.2)
            clients = [socket.create_connection(held.getsockname()) for _ in range(64)]
            came = [0, 0]
            for i, made in enumerate((first, second)):
                with suppress(TimeoutError):
                    while True:
                        made.accept()[0].close()
                        came[i] += 1
            for client in clients:
                client.close()
    assert sum(came) == 64
    assert min(came) >= 8  # fewer than one time in a thousand million where they are dealt out by chance


def test_a_unix_socket_is_for_those_whom_its_mode_lets_in(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for mode in (0o600, 0o660, 0o666):
        before = os.umask(0o022)
        try:
            with bound(Settings(uds=path, uds_mode=mode)) as (made,):
                assert stat.S_IMODE(path.stat().st_mode) == mode
                made.listen()
                with closing(socket.socket(socket.AF_UNIX)) as client:
                    client.connect(str(path))
                assert own(made) is made
        finally:
            assert os.umask(before) == 0o022
        assert not path.exists()


def test_the_file_of_a_gateway_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(path))
    with bound(Settings(uds=path)):
        assert path.is_socket()
    assert not path.exists()


def test_the_socket_of_a_gateway_that_runs_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with closing(socket.socket(socket.AF_UNIX)) as running:
        running.bind(str(path))
        running.listen()
        with pytest.raises(SettingsError, match="something answers there"), bound(Settings(uds=path)):
            pass
    assert path.is_socket()


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "experts.yaml"
    path.write_text("precious")
    with pytest.raises(SettingsError, match="is no socket"), bound(Settings(uds=path)):
        pass
    assert path.read_text() == "precious"


def test_a_socket_that_another_put_in_its_place_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with closing(socket.socket(socket.AF_UNIX)) as other:
        with bound(Settings(uds=path)):
            path.unlink()
            other.bind(str(path))
        assert path.is_socket()


@pytest.mark.parametrize("name", ["missing/s", "x" * 200])
def test_a_path_that_cannot_be_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(SettingsError, match=r"cannot listen on .*--uds") as caught,
        bound(Settings(uds=tmp_path / name)),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_connections_are_bounded_by_the_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("gateway.sockets.resource.getrlimit", lambda _: (256, 1128))
    monkeypatch.setattr("gateway.sockets.resource.setrlimit", lambda _, limits: asked.append(limits))
    assert connections_allowed() == (1128 - 128) // 2
    assert asked == [(1128, 1128)]
    monkeypatch.setattr("gateway.sockets.resource.getrlimit", lambda _: (1 << 20, resource.RLIM_INFINITY))
    assert connections_allowed() == 10_000
