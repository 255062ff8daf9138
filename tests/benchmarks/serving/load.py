"""wrk, which makes the load: from Debian, and quick enough not to be what is measured."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("wrk.lua")
PATIENCE = 30  # seconds that an answer may take
LONGER = (1, 4, 16)


class NoLoadError(Exception):
    """wrk is not there, or could not do its work. The message says what to do."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw. `p50` and `p99` are the latencies in seconds, `failed` the answers that were none."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def wrk() -> str:
    """Where it is. Raises NoLoadError."""
    found = shutil.which("wrk")
    if found is None:
        raise NoLoadError("wrk makes the load and is not installed; on Debian and Ubuntu: apt-get install wrk")
    return found


def load(url: str, bodies: Path, begin: int, clients: int, seconds: int) -> Load:
    """Keep so many clients busy for so long with the bodies from `begin` on. Raises NoLoadError.

    What answers nothing within `seconds` is given more of them: on a busy machine a slow proxy may take longer for each.
    """
    for longer in LONGER:
        found = _run(url, bodies, begin, clients, seconds * longer)
        if found["requests"]:
            failed = found["refused"] + found["broken"]
            return Load(found["requests"], found["seconds"], found["p50"], found["p99"], failed)
    raise NoLoadError(f"not one answer came from {url} within {seconds * LONGER[-1]} s")


def _run(url: str, bodies: Path, begin: int, clients: int, seconds: int) -> dict[str, Any]:
    """What the script tells."""
    command = [wrk(), "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", f"{PATIENCE}s", "-s", str(SCRIPT), url]
    command += ["--", str(bodies), str(begin)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 2 * PATIENCE)
        found: dict[str, Any] = json.loads(ran.stdout.rstrip().rpartition("\n")[2])
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise NoLoadError(f"wrk failed: {error}") from None
    return found
