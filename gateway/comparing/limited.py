"""Runs one command with little of the machine, as a program: limited.py CPU_SECONDS MEMORY_BYTES FILE_BYTES COMMAND …

It takes the place of this process, so that whoever started this one has the command itself to wait for and to end.
"""

from __future__ import annotations

import os
import resource
import sys

OPEN_FILES = 256


def main() -> None:
    cpu, memory, size = (int(word) for word in sys.argv[1:4])
    limits = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: size,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
    try:
        os.execvp(sys.argv[4], sys.argv[4:])  # noqa: S606 - the operator's own command, asked for
    except OSError as error:
        sys.stderr.write(f"{sys.argv[4]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
