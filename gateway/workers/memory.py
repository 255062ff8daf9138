"""The memory that a worker takes: of its process and all below it."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.workers.keeper import descendants

_SHARE = re.compile(rb"^(?:Pss|VmRSS):\s+(\d+) kB", re.MULTILINE)


def memory_of(pid: int) -> int | None:
    """Bytes, pages that are shared counted in parts (PSS), or each in whole (RSS) where the system does not tell parts.
    None where it tells nothing."""
    shares = [share for each in (pid, *descendants(pid)) if (share := _share(each)) is not None]
    return sum(shares) if shares else None


def _share(pid: int) -> int | None:
    for name in ("smaps_rollup", "status"):
        try:
            found = _SHARE.search(Path(f"/proc/{pid}/{name}").read_bytes())
        except OSError:
            continue
        if found:
            return int(found[1]) * 1024
    return None
