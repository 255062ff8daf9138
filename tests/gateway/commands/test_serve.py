"""The options of `serve`: each has its variable, and what is wrong with one is told in one line before anything is started."""

from __future__ import annotations

import inspect
import json
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app, main
from gateway.commands.serve import serve
from gateway.ledger.errors import NewerLedgerError
from gateway.observing import OBSERVERS
from gateway.settings import Settings, Watch

OPTIONS = {
    name: next(part for part in get_args(hint) if hasattr(part, "envvar"))
    for name, hint in get_type_hints(serve, include_extras=True).items()
    if name != "return"
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "experts.yaml"
    price = {"input": 1.0, "output": 2.0}
    expert = {"model": "m", "domains": ["general"], "upstream": {"vllm": ["http://127.0.0.1:9/v1"]}, "price": price}
    path.write_text(json.dumps({"version": 1, "experts": {"one": expert}}))
    return path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings with which something would have been served: where they are right, nothing is bound or started."""
    seen: list[Settings] = []
    monkeypatch.setattr("gateway.commands.serve._serve", lambda settings, file, with_workers: seen.append(settings))
    return seen


def call(*arguments: str, environment: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, ["serve", *arguments], env=environment)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_has_its_variable_and_says_what_it_is(name: str) -> None:
    assert OPTIONS[name].envvar == f"MOE_GATEWAY_{name.upper()}"
    assert OPTIONS[name].help
    assert name in inspect.signature(serve).parameters


def test_with_no_options_it_is_set_up_as_promised(config: Path, served: list[Settings]) -> None:
    assert call("--config", str(config)).exit_code == 0
    state = config.parent / ".moe-gateway"
    ledger = f"sqlite:///{state}/ledger.db"
    assert served == [Settings(config=config, state=state, ledger=ledger, ledger_keep=90 * 86400.0, watch=Watch.AUTO)]


GIVEN: dict[str, tuple[str, Any]] = {
    "host": ("[::1]", "::1"),
    "port": ("0", 0),
    "uds": ("/tmp/x.sock", Path("/tmp/x.sock")),  # noqa: S108 - never made
    "uds_mode": ("660", 0o660),
    "processes": ("4", 4),
    "state": ("/nowhere", Path("/nowhere")),
    "max_connections": ("10", 10),
    "backlog": ("7", 7),
    "drain_delay": ("1.5", 1.5),
    "drain_seconds": ("90", 90.0),
    "ledger": ("sqlite:////nowhere/x.db", "sqlite:////nowhere/x.db"),
    "ledger_keep": ("36h", 36 * 3600.0),
}
RENAMED: dict[str, tuple[str, str, Any]] = {
    "max_body_mib": ("max_body_bytes", "3", 3 * 1024 * 1024),
    "max_header_kib": ("max_header_bytes", "16", 16 * 1024),
    "keep_alive": ("keep_alive_seconds", "5", 5.0),
}
CASES = [(option, option, *given) for option, given in GIVEN.items()] + [(o, *given) for o, given in RENAMED.items()]


@pytest.mark.parametrize(("option", "setting", "written", "meant"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("by_variable", [False, True], ids=["option", "variable"])
def test_what_is_given_is_what_is_meant(
    config: Path, served: list[Settings], option: str, setting: str, written: str, meant: object, by_variable: bool
) -> None:
    arguments: Sequence[str] = () if by_variable else (f"--{option.replace('_', '-')}", written)
    environment = {f"MOE_GATEWAY_{option.upper()}": written} if by_variable else {}
    assert call("--config", str(config), *arguments, environment=environment).exit_code == 0
    assert getattr(served[0], setting) == meant
    assert getattr(Settings(), setting) != meant


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--tls-cert", "c.pem"), "--tls-cert is of no use without --tls-key"),
        (("--tls-key", "k.pem"), "--tls-key is of no use without --tls-cert"),
        (("--tls-cert", "/nowhere/c.pem", "--tls-key", "/nowhere/k.pem"), "--tls-cert: /nowhere/c.pem cannot be read"),
        (("--uds-mode", "rw"), "--uds-mode: 'rw' is no mode such as 660"),
        (("--uds-mode", "1777"), "--uds-mode: '1777' is no mode"),
        (("--uds-mode", "-1"), "--uds-mode: '-1' is no mode"),
        (("--ledger", "mysql://me:hunter2@h/db"), "--ledger takes sqlite:////path/to/ledger.db, postgresql://"),
        (("--ledger-keep", "0d"), "--ledger-keep: '0d' is neither forever nor a time such as 90d"),
        (("--ledger-keep", "3600"), "--ledger-keep: '3600' is neither"),
    ],
)
def test_called_wrongly_is_one_line_and_status_2(
    config: Path, served: list[Settings], capfd: pytest.CaptureFixture[str], arguments: Sequence[str], told: str
) -> None:
    result = call("--config", str(config), *arguments)
    error = result.stderr or capfd.readouterr().err
    assert result.exit_code == 2
    assert error.replace("\n", " ").strip().startswith(f"error: {told}")
    assert error.count("\n") == 1
    assert served == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--processes", "0"),
        ("--processes", "many"),
        ("--port", "65536"),
        ("--port", "-1"),
        ("--backlog", "0"),
        ("--keep-alive", "-1"),
        ("--drain-delay", "-1"),
        ("--drain-seconds", "soon"),
        ("--max-header-kib", "0"),
        ("--max-body-mib", "0"),
        ("--max-connections", "0"),
    ],
)
def test_what_cannot_be_is_refused_with_status_2(
    config: Path, served: list[Settings], arguments: tuple[str, str]
) -> None:
    result = call("--config", str(config), *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.output
    assert served == []


def test_a_ledger_may_be_none_kept_for_ever_and_hold_prompts(
    config: Path, served: list[Settings], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("--config", str(config), "--ledger", "none", "--ledger-prompts").exit_code == 0
    assert served[0].ledger is None
    result = call("--config", str(config), "--ledger-keep", "forever", "--ledger-prompts")
    assert (served[1].ledger_keep, served[1].ledger_prompts) == (None, True)
    assert "prompts are written into the ledger" in (result.stderr or capfd.readouterr().err)


def test_observers_are_named_each_once_by_option_or_variable(config: Path, served: list[Settings]) -> None:
    with OBSERVERS.lending("acme", object), OBSERVERS.lending("bill", object):  # type: ignore[arg-type]
        call("--config", str(config), "--observer", "acme", "--observer", "bill", "--observer", "acme")
        call("--config", str(config), environment={"MOE_GATEWAY_OBSERVER": "bill acme"})
    assert [settings.observers for settings in served] == [("acme", "bill"), ("bill", "acme")]


def test_an_observer_that_no_package_adds_is_refused(config: Path, served: list[Settings]) -> None:
    result = call("--config", str(config), "--observer", "nobody-adds-this")
    assert (result.exit_code, served) == (2, [])
    assert "--observer: no observer 'nobody-adds-this' is installed" in result.output


def test_the_ledger_of_a_newer_gateway_is_refused(config: Path, tmp_path: Path, served: list[Settings]) -> None:
    (tmp_path / ".moe-gateway").mkdir()
    with closing(sqlite3.connect(tmp_path / ".moe-gateway" / "ledger.db")) as newer, newer:
        newer.execute("CREATE TABLE ledger_revision AS SELECT '9999' AS version_num")
    assert isinstance(call("--config", str(config)).exception, NewerLedgerError)
    assert served == []


def test_a_unix_socket_needs_no_key_whatever_the_host(config: Path, served: list[Settings]) -> None:
    assert call("--config", str(config), "--host", "::", "--uds", "x.sock").exit_code == 0
    assert call("--config", str(config), "--host", "::").exit_code != 0
    assert len(served) == 1


def test_a_unix_socket_in_use_is_one_line_and_status_1(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "file"
    taken.write_text("precious")
    monkeypatch.setattr("sys.argv", ["moe-gateway", "serve", "--config", str(config), "--uds", str(taken)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert "is no socket" in capfd.readouterr().err
    assert stat.S_ISREG(taken.stat().st_mode)
