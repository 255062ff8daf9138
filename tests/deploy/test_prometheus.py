"""Prometheus' and Alertmanager's tools take their files; every alert fires in a rehearsal, and asks for what is counted."""

from __future__ import annotations

import re
import subprocess
from http import HTTPStatus
from pathlib import Path
from typing import get_args

import promql_parser
import pytest

from gateway.exchange import CLIENT_CLOSED_REQUEST, Outcome
from gateway.exposition import NONE, PLAIN_TYPE
from gateway.families import TTFT
from gateway.processmetrics import REFUSALS
from gateway.queueing import Reason as NoPlace
from gateway.routes.carried import KINDS
from gateway.workers.protocol import WorkerState
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
from tests.deploy.operators_rules import objects
from tests.deploy.prometheus_rules import alerts, groups, recorded, recordings
from tests.deploy.vllms import series

ALERTMANAGER = DEPLOY / "alertmanager" / "alertmanager.yml"
REHEARSALS = sorted(Path(__file__).parent.glob("*.test.yml"))
FIRES_AND_DOES_NOT_AT_ONCE = {
    "ReplicaFlapping",
    "WorkerRestarts",
    "GatewayRestarts",
}  # for two replicas, experts, gateways
REHEARSAL_SECONDS = 400  # six of a processor; others may want it as well
ADDED = {"job", "instance"}  # to every series, by whoever asks for it
BUILT_IN = {"up": set[str]()}


def ran(*command: str) -> str:
    """What it says on standard output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=REHEARSAL_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_configuration_and_its_rules() -> None:
    said = ran(tool("promtool"), "check", "config", "--lint=all", str(PROMETHEUS / "prometheus.yml"))
    assert prometheus()["rule_files"] == ["rules.yml", "alerts.yml"]
    assert re.findall(r"(\d+) rules found", said) == [str(len(recordings())), str(len(alerts()))]


@pytest.mark.timeout(REHEARSAL_SECONDS + 20)
@pytest.mark.parametrize("rehearsal", REHEARSALS, ids=lambda path: path.name)
def test_rules_do_what_they_should(rehearsal: Path) -> None:
    ran(tool("promtool"), "test", "rules", str(rehearsal))


def test_every_rule_is_rehearsed_and_every_alert_both_fires_and_does_not() -> None:
    tests = [test for path in REHEARSALS for test in documents(path.read_text("utf-8"))[0]["tests"]]
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    names = {rule["alert"] for rule in alerts()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names - FIRES_AND_DOES_NOT_AT_ONCE
    asked = [case["expr"] for test in tests for case in test.get("promql_expr_test", ())]
    asked += [rule["expr"] for rule in (*recordings(), *alerts())]
    assert not [name for name in recorded() if not re.search(rf"{name}\b", " ".join(asked))]


def test_kubernetes_has_the_same_rules() -> None:
    """Where this fails: make rules."""
    for path, text in objects().items():
        assert path.read_text("utf-8") == text
        [rule] = documents(text)
        assert rule["spec"]["groups"] == groups(f"{path.stem}.yml")


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
    assert {name for names in named for name in names.split("|")} <= {rule["alert"] for rule in alerts()}


def known(name: str) -> dict[str, set[str]]:
    """The series, and their labels, of whoever counts what is called so."""
    return series() if name.startswith("vllm:") else metrics() | recorded() | BUILT_IN


def name_of(rule: Document) -> str:
    return str(rule.get("alert") or rule["record"])


@pytest.mark.parametrize("rule", [*recordings(), *alerts()], ids=name_of)
def test_a_rule_asks_for_series_and_labels_that_are_there(rule: Document) -> None:
    expression = rule["expr"]
    labels = ADDED | recorded().get(rule.get("record", ""), set())
    for selector in selectors(promql_parser.parse(expression)):
        assert selector.name in known(selector.name), f"nobody counts {selector.name}"
        of_series = known(selector.name)[selector.name] | ADDED
        labels |= of_series
        assert {matcher.name for matcher in selector.matchers.matchers} <= of_series, selector.name
    made = set(re.findall(r'label_replace\(.*?, "(\w+)", "\$1"', expression))
    assert grouped(expression) <= labels | made
    said = set(re.findall(r"\$labels\.(\w+)", str(rule.get("annotations"))))
    assert said <= grouped(expression) | (ADDED if not grouped(expression) else set())


def values(counter: str, label: str) -> set[str]:
    """Those that the code gives the label."""
    reasons: dict[str, set[str]] = {
        "moe_routing_decisions_total": set(get_args(Reason)),
        "moe_queue_refused_total": set(get_args(NoPlace)),
        "moe_fallbacks_total": {*Outcome, *get_args(NoPlace)},
        "moe_connections_refused_total": set(REFUSALS),
    }
    of_labels: dict[str, set[str]] = {
        "reason": reasons.get(counter, set()),
        "state": set(WorkerState),
        "le": {str(bound) for bound in TTFT},
        "job": set(scrape_jobs()),
        "slo": {"availability", "ttft"},
        "domain": {NONE},
        "endpoint": {"route", *(kind.endpoint for kind in KINDS.values())},
        "code": {str(code.value) for code in HTTPStatus} | {str(CLIENT_CLOSED_REQUEST)},
    }
    return of_labels[label]


@pytest.mark.parametrize("rule", [*recordings(), *alerts()], ids=name_of)
def test_values_of_labels_are_ones_that_are_counted(rule: Document) -> None:
    for selector in selectors(promql_parser.parse(rule["expr"])):
        for matcher in selector.matchers.matchers:
            counted = values(selector.name, matcher.name)
            for value in matcher.value.split("|"):
                assert any(re.fullmatch(value, one) for one in counted), (selector.name, matcher.name, value)


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
    assert PLAIN_TYPE.startswith("text/plain; version=0.0.4")


def test_no_name_of_a_worker_is_asked_that_no_profile_has() -> None:
    known_workers = {worker.address for profile in OVERLAYS for worker in composed_workers(profile)}
    assert set(scrape_jobs()["vllm"]["dns_sd_configs"][0]["names"]) == known_workers
