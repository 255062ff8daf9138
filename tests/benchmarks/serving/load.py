"""wrk, which makes the load: from Debian, and quick enough not to be what is measured."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk.lua")
PATIENCE = 30  # seconds that an answer may take


class NoLoadError(Exception):
    """wrk is not there, or could not do its work. The message says what to do."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw. `p50` and `p99` are the latencies in seconds, `failed` the answers that were none, `asked` how many
    of the bodies were sent, in shorter tries before it as well."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int
    asked: int

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
    """Keep so many clients busy for so long with the bodies from `begin` on. Raises NoLoadError where wrk cannot."""
    command = [wrk(), "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", f"{PATIENCE}s", "-s", str(SCRIPT), url]
    command += ["--", str(bodies), str(begin)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 2 * PATIENCE)
        found = json.loads(ran.stdout.rstrip().rpartition("\n")[2])
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise NoLoadError(f"wrk failed: {error}") from None
    # Every client has asked for one more than was answered.
    requests, failed = found["requests"], found["refused"] + found["broken"]
    return Load(requests, found["seconds"], found["p50"], found["p99"], failed, requests + clients)
