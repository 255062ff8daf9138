"""Where the gateway listens: bound sockets, taken before anything slow, so that an address in use is told at once."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.errors import SettingsError
from gateway.settings import Settings

NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
MOST_CONNECTIONS = 10_000
RESERVED_FILES = 128  # for everything that is no connection
FILES_PER_CONNECTION = 2  # the client's, and the one to the expert


@contextmanager
def bound(settings: Settings) -> Iterator[list[socket.socket]]:
    """Bound sockets that do not listen yet. Raises SettingsError.

    A Unix socket's file is gone afterwards. A name that stands for several addresses, such as localhost, gets a socket for each,
    on one port; `::` takes IPv4 as well. Where there are to be several processes each makes its own of these with `own`.
    """
    with ExitStack() as stack:
        if settings.uds is not None:
            yield [stack.enter_context(_unix(settings.uds, settings.uds_mode))]
        else:
            yield _internet(settings.host, settings.port, settings.processes > 1, stack)


def named(settings: Settings, sockets: Sequence[socket.socket]) -> Settings:
    """The settings with the port that the system chose, where that was left to it."""
    return settings if settings.uds is not None else replace(settings, port=sockets[0].getsockname()[1])


def own(shared: socket.socket) -> socket.socket:
    """What one of several processes listens on in place of the socket that its parent bound.

    A socket of its own on the same port: the system deals connections out evenly among those who listen there, and to the others
    as soon as a process is gone. A Unix socket is listened on by all: whoever comes first takes what has come.
    """
    if shared.family == socket.AF_UNIX:
        return shared
    with shared:
        return _internet_socket(shared.family, shared.type, shared.proto, shared.getsockname(), True)


def connections_allowed() -> int:
    """How many connections the open files of this process suffice for. Raises the limit as far as this user may first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(16, min(MOST_CONNECTIONS, (soft - RESERVED_FILES) // FILES_PER_CONNECTION))


def _internet(host: str, port: int, several: bool, stack: ExitStack) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    lacking: OSError | None = None
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                made = _internet_socket(family, kind, protocol, (address[0], port, *address[2:]), False)
                if several:
                    # Asked for alone first: a port that may be shared can be had though another gateway is there.
                    address = made.getsockname()
                    made.close()
                    made = _internet_socket(family, kind, protocol, address, True)
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                lacking = error  # a name may stand for an address of a family that this machine lacks
                continue
            sockets.append(stack.enter_context(made))
            port = made.getsockname()[1]
        if lacking is not None and not sockets:
            raise lacking
    except (socket.gaierror, UnicodeError):
        raise SettingsError(f"{host or 'nothing'} is not an address of this machine; name one with --host") from None
    except PermissionError:
        raise SettingsError(f"port {port} may not be used by this user; choose one from 1024 on with --port") from None
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port, or stop what uses it"
        ) from None
    return sockets


def _internet_socket(family: int, kind: int, protocol: int, address: Any, shared: bool) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


@contextmanager
def _unix(path: Path, mode: int) -> Iterator[socket.socket]:
    _remove_stale(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with made:
        # The file never has wider permissions than asked for, not even for a moment. No other thread runs yet.
        mask = os.umask(0o777 & ~mode)
        try:
            made.bind(str(path))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {path}: {error.strerror or error}; name another with --uds"
            ) from None
        finally:
            os.umask(mask)
        own = path.lstat()
        try:
            yield made
        finally:
            with contextlib.suppress(OSError):
                now = path.lstat()
                if (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino):  # else another has taken the place
                    path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove what a gateway that was killed left behind. Raises SettingsError where something else is there."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SettingsError(f"{path} is there and is no socket; name another with --uds, or remove it")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except OSError as error:
        raise SettingsError(f"cannot listen on {path}: {error.strerror or error}; name another with --uds") from None
    raise SettingsError(f"cannot listen on {path}: something answers there; name another with --uds, or stop it")
