"""What every test may use, and the rules that nothing is skipped unseen and that few tests get a second try."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# How long an example takes says more of the machine than of the code.
settings.register_profile("whatever machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("whatever machine")

ALLOWED = Path(__file__).parent / "allowed_skips.json"  # {"test id, or the folder of all of them with its /": "reason"}


MOST_RERUNS = 3  # tests; more of them are no chance
# These need much memory or measure what they share: one after the other. They take longest, so that they come first.
ALONE = ("tests/vllm/",)


class Files(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Which process runs what: the tests of one file stay together, since they share what was started for them."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in ALONE if nodeid.startswith(folder)), nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Files:
    return Files(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(ALONE))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A command that a test runs in this process may silence the log, or turn it elsewhere: not for the next test."""
    log = logging.getLogger("moe_gateway")
    level, propagate, handlers = log.level, log.propagate, list(log.handlers)
    try:
        return (yield)
    finally:
        log.setLevel(level)
        log.propagate, log.handlers = propagate, handlers


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Under CI=true a skipped test fails the run unless it is listed with its reason; so do more than a few second tries."""
    if os.environ.get("CI") != "true" or hasattr(session.config, "workerinput"):  # one process speaks for all
        return
    allowed = json.loads(ALLOWED.read_text("utf-8"))
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = {report.nodeid for report in reporter.stats.get("skipped", [])}
    folders = tuple(name for name in allowed if name.endswith("/"))
    if unlisted := sorted(test for test in skipped - set(allowed) if not test.startswith(folders)):
        reporter.write_line(f"skipped under CI and not listed in {ALLOWED.name}: {', '.join(unlisted)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if len(rerun := {report.nodeid for report in reporter.stats.get("rerun", [])}) > MOST_RERUNS:
        reporter.write_line(f"{len(rerun)} tests needed a second try; more than {MOST_RERUNS} fail the run", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How each test failed that was tried again: it is to be mended, whatever came of the second try."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.write_sep("=", f"FLAKY: {report.nodeid}", red=True)
        terminalreporter.write_line(report.longreprtext)
