"""Prometheus' and Alertmanager's tools take their files; every alert fires in a rehearsal, and asks for what is counted."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import get_args

import promql_parser
import pytest

from gateway.metrics import CONTENT_TYPE
from router.decision import Reason
from tests.deploy.expressions import grouped, selectors
from tests.deploy.files import (
    DEPLOY,
    OVERLAYS,
    PROMETHEUS,
    Document,
    address,
    composed_workers,
    documents,
    image_environment,
    prometheus,
    scrape_jobs,
    services,
    tool,
)
from tests.deploy.gateways import metrics, paths
from tests.deploy.vllms import series

ALERTMANAGER = DEPLOY / "alertmanager" / "alertmanager.yml"
REHEARSAL = Path(__file__).parent / "alerts.test.yml"
ADDED = {"job", "instance"}  # to every series, by whoever asks for it
BUILT_IN = {"up": set[str]()}


def ran(*command: str) -> str:
    """What it says on standard output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[Document]:
    groups = documents((PROMETHEUS / "alerts.yml").read_text("utf-8"))[0]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_promtool_takes_the_configuration_and_its_rules() -> None:
    assert "15 rules found" in ran(
        tool("promtool"), "check", "config", "--lint=all", str(PROMETHEUS / "prometheus.yml")
    )


def test_every_alert_fires_when_it_should() -> None:
    ran(tool("promtool"), "test", "rules", str(REHEARSAL))
    rehearsed = {
        case["alertname"]
        for test in documents(REHEARSAL.read_text("utf-8"))[0]["tests"]
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert rehearsed == {rule["alert"] for rule in rules()}


def test_amtool_takes_alertmanagers_configuration() -> None:
    assert "SUCCESS" in ran(tool("amtool"), "check-config", str(ALERTMANAGER))


@pytest.mark.parametrize(
    ("labels", "receiver"), [(["alertname=GatewayDown", "severity=critical"], "slack"), (["severity=warning"], "slack")]
)
def test_alerts_reach_somebody(labels: list[str], receiver: str) -> None:
    told = ran(tool("amtool"), "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels)
    assert told.strip() == receiver


def test_alertmanager_mutes_alerts_that_exist() -> None:
    [file] = documents(ALERTMANAGER.read_text("utf-8"))
    named = re.findall(r'alertname!?=~?"([\w|]+)"', str(file["inhibit_rules"]))
    assert {name for names in named for name in names.split("|")} <= {rule["alert"] for rule in rules()}


def known(name: str) -> dict[str, set[str]]:
    """The series, and their labels, of whoever counts what is called so."""
    return series() if name.startswith("vllm:") else metrics() | BUILT_IN


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_series_and_labels_that_are_there(rule: Document) -> None:
    expression = rule["expr"]
    found = list(selectors(promql_parser.parse(expression)))
    assert found
    labels = set(ADDED)
    for selector in found:
        assert selector.name in known(selector.name), f"nobody counts {selector.name}"
        of_series = known(selector.name)[selector.name] | ADDED
        labels |= of_series
        assert {matcher.name for matcher in selector.matchers.matchers} <= of_series, selector.name
    made = set(re.findall(r'label_replace\(.*?, "(\w+)", "\$1"', expression))
    assert grouped(expression) <= labels | made
    said = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert said <= grouped(expression) | (ADDED if not grouped(expression) else set())
    assert rule["labels"]["severity"] in {"critical", "warning"}


def test_values_of_labels_are_ones_that_are_counted() -> None:
    text = (PROMETHEUS / "alerts.yml").read_text("utf-8")
    reasons = {reason for values in re.findall(r'reason=~"([\w|]+)"', text) for reason in values.split("|")}
    assert reasons
    assert reasons <= set(get_args(Reason))
    assert set(re.findall(r'\bjob="([\w-]+)"', text)) <= scrape_jobs().keys()
    assert set(re.findall(r'outcome="(\w+)"', text)) == {"failed"}


@pytest.mark.parametrize("profile", OVERLAYS)
def test_what_is_asked_for_metrics_is_a_service_and_its_port(profile: str) -> None:
    names = {address(name, service) for name, service in services(profile).items()}
    [gateway] = scrape_jobs()["moe-gateway"]["static_configs"][0]["targets"]
    assert gateway == f"gateway:{image_environment()['MOE_GATEWAY_PORT']}"
    assert "gateway" in names
    [workers] = scrape_jobs()["vllm"]["dns_sd_configs"]
    for worker in composed_workers(profile):
        assert worker.address in workers["names"]
        assert worker.flag("port") == str(workers["port"])
    alertmanagers = prometheus()["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert alertmanagers == ["alertmanager:9093"]
    assert "alertmanager" in names
    assert "/metrics" in paths()  # which Prometheus asks where nothing else is said
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_no_name_of_a_worker_is_asked_that_no_profile_has() -> None:
    known_workers = {worker.address for profile in OVERLAYS for worker in composed_workers(profile)}
    assert set(scrape_jobs()["vllm"]["dns_sd_configs"][0]["names"]) == known_workers
