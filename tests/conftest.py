"""What every test may use, and the rule that nothing is skipped unseen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("whatever machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("whatever machine")

ALLOWED = Path(__file__).parent / "allowed_skips.json"  # {"test id, or the folder of all of them with its /": "reason"}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Under CI=true a skipped test fails the run unless it is listed with its reason."""
    if os.environ.get("CI") != "true":
        return
    allowed = json.loads(ALLOWED.read_text("utf-8"))
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = {report.nodeid for report in reporter.stats.get("skipped", [])}
    folders = tuple(name for name in allowed if name.endswith("/"))
    if unlisted := sorted(test for test in skipped - set(allowed) if not test.startswith(folders)):
        reporter.write_line(f"skipped under CI and not listed in {ALLOWED.name}: {', '.join(unlisted)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
