"""Has a command run by forking.py in this process's place: with its arguments, folder, environment and descriptors."""

import json
import os
import signal
import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.environ["PAGES_SOCKET"])
    signal.signal(signal.SIGTERM, lambda *_: server.shutdown(socket.SHUT_WR))  # it ends the command, and tells how
    call = {"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}
    socket.send_fds(server, [json.dumps(call).encode()], [0, 1, 2])
    status = server.recv(16)
sys.exit(int(status or b"1"))
