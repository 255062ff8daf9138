"""The moe-gateway command without the time that its start takes: a process that has imported it forks for each call.

Run: python -m tests.docs.forking SOCKET. A client sends its arguments, folder and environment with its three standard
descriptors, and gets the exit status; a client that goes takes the command with it.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any

from router.cataloguing.catalog import load_catalog

TERMINATING = 20.0  # seconds until what ignores SIGTERM is killed


# What most commands import, some of it only when it is needed.
IMPORTED = (
    "alembic.command gateway.app gateway.cli gateway.dataplane gateway.inspection gateway.ledger.store gateway.serving "
    "onnxruntime rich.table router.explaining.explain router.routing router.training.provision sklearn.linear_model tokenizers "
    "uvicorn uvloop"
)


def main(path: str) -> None:
    for name in IMPORTED.split():
        importlib.import_module(name)
    load_catalog()  # it is kept
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                _serve(client)
                os._exit(0)
            client.close()
    finally:
        with suppress(ChildProcessError):
            while True:
                os.wait()


def _serve(client: socket.socket) -> None:
    message, descriptors, _, _ = socket.recv_fds(client, 1 << 20, 3)
    call = json.loads(message)
    child = os.fork()
    if child == 0:
        client.close()
        _become(call, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    ended = os.pidfd_open(child)
    waiting: list[Any] = [client, ended]
    select.select(waiting, [], [])
    if not select.select([ended], [], [], 0)[0]:
        os.kill(child, signal.SIGTERM)
        if not select.select([ended], [], [], TERMINATING)[0]:
            os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(BrokenPipeError):
        client.sendall(str(status if status >= 0 else 128 - status).encode())


def _become(call: dict[str, Any], descriptors: list[int]) -> None:
    """The command, as its console script starts it. Does not return."""
    from gateway.cli import main as command

    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.setsid()
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.path[:0] = call["environment"]["PYTHONPATH"].split(":")[:1]  # what the page installed
    sys.argv = ["moe-gateway", *call["arguments"]]
    status = 1
    try:
        command()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception:  # noqa: BLE001 - as the interpreter does at the top
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1])
