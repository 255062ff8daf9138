"""moe-gateway config: what was served is told, compared, and put back, all files or none."""

from __future__ import annotations

import json
import socket
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app, main
from gateway.commands.configdiff import difference
from gateway.history import History
from router.experts import load_experts
from router.sources import Sources, read_sources
from tests.fakes.pages import pages
from tests.fakes.terminal import terminal
from tests.fakes.upstream import PATIENCE, FakeServer
from tests.integration.conftest import Start, artifact, experts_yaml, servers, start

__all__ = ["artifact", "servers", "start"]  # fixtures

FILE = """\
version: 1
experts:
  general:
    model: m     # the first
    domains: {general: 0.9}
    upstream: {vllm: [http://10.0.0.1:8000/v1], api_key: "${SECRET_KEY}"}
"""
SECOND = FILE.replace("general: 0.9", "general: 0.8")
BROKEN = "version: 1\nexperts: [\n# api_key: sk-0123456789abcdef\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Served twice; FILE is number 1, and SECOND, which stands there, number 2."""
    monkeypatch.setenv("SECRET_KEY", "top-secret")
    path = tmp_path / "experts.yaml"
    for at, text in enumerate((FILE, SECOND)):
        path.write_text(text)
        served(path, float(at), "reload" if at else "start")
    return path


def history(config: Path) -> History:
    return History(config.parent / ".moe-gateway" / "history")


def served(config: Path, at: float, why: str) -> None:
    sources = read_sources(config)
    history(config).record(sources, sources.digest, at, why)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["config", *map(str, arguments)])


def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path, status: int = 1
) -> str:
    """What is told on standard error with that exit status."""
    monkeypatch.setattr("sys.argv", ["moe-gateway", "config", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == status
    return capsys.readouterr().err


def test_the_history_is_listed_and_says_which_one_stands_there(config: Path) -> None:
    shown = run("history", "--config", config).stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["number", "2", "1"]
    assert "+1 -1" in shown[1]
    assert [line.rstrip().endswith("◂ the files now") for line in shown[1:]] == [True, False]
    told = json.loads(run("history", "--config", config, "--json").stdout)["data"]
    assert [(one["number"], one["why"], one["is_now"]) for one in told] == [(2, "reload", True), (1, "start", False)]
    assert told[0]["digest"] == load_experts(config).digest


def test_damage_is_told_and_hides_nothing_else(config: Path) -> None:
    (history(config).folder / "000001.json").write_text("{")
    result = run("history", "--config", config)
    assert "000001.json is damaged" in result.stderr.replace("\n", "")
    assert "reload" in result.stdout


def test_without_a_history_it_is_said_who_writes_one(tmp_path: Path) -> None:
    assert "a gateway writes one while it serves" in run("history", "--config", tmp_path / "experts.yaml").stdout


def test_a_difference_is_told_line_by_line_and_in_words(config: Path) -> None:
    shown = run("diff", "1", "2", "--config", config).stdout
    assert "-    domains: {general: 0.9}\n+    domains: {general: 0.8}\n" in shown
    assert "• expert general changed: domains.general" in shown
    assert "@@ -2,5 +2,5 @@" in shown
    told = json.loads(run("diff", "1", "2", "--config", config, "--json").stdout)
    assert told["changes"] == ["expert general changed: domains.general"]
    assert [(f["name"], f["added"], f["removed"]) for f in told["files"]] == [("experts.yaml", 1, 1)]


def test_by_default_the_last_served_is_compared_with_the_files_now(config: Path) -> None:
    assert run("diff", "--config", config).stdout == "no difference\n"
    config.write_text(SECOND + "# more\n")
    shown = run("diff", "--config", config).stdout
    assert "+# more" in shown
    assert "Comments, order or spelling alone differ." in shown


def test_no_secret_is_shown_even_of_a_file_that_cannot_be_read(config: Path) -> None:
    config.write_text(BROKEN)
    shown = run("diff", "--config", config).stdout
    assert "sk-0123456789abcdef" not in shown
    assert "# api_key: ••••••" in shown
    assert "One of the two cannot be read" in shown


def test_a_digest_names_one_too(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = history(config).entries()[1].digest
    assert "general: 0.9" in run("diff", digest[:6], "--config", config).stdout
    assert "it has the numbers 2, 1" in refused(capsys, monkeypatch, "diff", "7", "--config", config)


def test_back_goes_what_was_served_and_nothing_is_lost(config: Path) -> None:
    config.write_text(BROKEN)
    config.chmod(0o640)
    result = run("rollback", "--yes", "--config", config)
    assert result.exit_code == 0, result.output
    assert config.read_text() == SECOND
    assert config.stat().st_mode & 0o777 == 0o640
    newest, kept, *_ = history(config).entries()
    assert (newest.why, newest.texts["experts.yaml"]) == ("rollback", SECOND)
    assert (kept.why, kept.texts["experts.yaml"]) == ("kept", BROKEN)
    assert run("rollback", str(kept.number), "--yes", "--force", "--config", config).exit_code == 0
    assert config.read_text() == BROKEN


def test_what_was_only_kept_is_not_gone_back_to_unasked(config: Path) -> None:
    config.write_text(BROKEN)
    run("rollback", "--yes", "--config", config)
    told = json.loads(run("rollback", "--yes", "--config", config, "--json").stdout)
    assert told["number"] == 1
    assert config.read_text() == FILE


def test_without_a_number_it_is_the_newest_that_differs(config: Path) -> None:
    told = json.loads(run("rollback", "--yes", "--config", config, "--json").stdout)
    assert (told["number"], told["written"]) == (1, ["experts.yaml"])
    assert config.read_text() == FILE
    again = run("rollback", "1", "--yes", "--config", config)
    assert "nothing to do" in again.stdout


def test_all_files_go_back_or_none(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second file's place is taken by a folder."""
    texts = {"experts.yaml": FILE, "legal.txt": "one\n"}
    history(config).record(Sources(config, texts), "both")
    (config.parent / "legal.txt").mkdir()
    told = refused(capsys, monkeypatch, "rollback", "3", "--yes", "--config", config)
    assert "legal.txt: Is a directory; nothing was written" in told
    assert config.read_text() == SECOND
    (config.parent / "legal.txt").rmdir()
    assert run("rollback", "3", "--yes", "--config", config).exit_code == 0
    assert config.read_text() == FILE
    assert (config.parent / "legal.txt").read_text() == "one\n"


def test_what_cannot_be_read_here_goes_back_with_force_alone(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECRET_KEY")
    told = refused(capsys, monkeypatch, "rollback", "1", "--yes", "--config", config)
    assert "SECRET_KEY" in told
    assert "--force puts it back all the same" in told
    assert config.read_text() == SECOND
    assert run("rollback", "1", "--yes", "--force", "--config", config).exit_code == 0
    assert config.read_text() == FILE


def test_nobody_who_cannot_be_asked_is_taken_to_agree(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "say --yes" in refused(capsys, monkeypatch, "rollback", "1", "--config", config, status=2)
    assert config.read_text() == SECOND


def test_on_a_terminal_it_shows_the_difference_and_asks(config: Path) -> None:
    with terminal("config", "rollback", "1", "--config", str(config)) as screen:
        assert screen.until(r"Put number 1 back in place\? \[y/N\]")
        assert "+    domains: {general: 0.9}" in screen.seen
        screen.press("n\r")
        assert screen.process.wait(PATIENCE) == 1
    assert config.read_text() == SECOND


def test_what_is_saved_while_it_asks_is_not_overwritten(config: Path) -> None:
    with terminal("config", "rollback", "1", "--config", str(config)) as screen:
        assert screen.until(r"\[y/N\]")
        config.write_text(SECOND + "# theirs\n")
        screen.press("y\r")
        assert screen.until("was changed meanwhile")
    assert config.read_text() == SECOND + "# theirs\n"


REFUSED = {
    "status": "refused", "config": "aaaaaaaaaaaa", "since": "2026-11-30T00:00:00+00:00", "router": "r", "experts": ["general"],
    "files": ["experts.yaml"], "changes": [], "warnings": [], "wanted": "bbbbbbbbbbbb", "tried": "2026-11-30T00:01:00+00:00",
    "problems": ["experts.yaml:3:1: experts: unknown key\x1b[31m"], "progress": None, "watch": "auto",
}  # fmt: skip


def answering(body: str) -> AbstractContextManager[str]:
    return pages({"/admin/config": body}, "the-admin-key")


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_GATEWAY_ADMIN_KEY", "the-admin-key")


@pytest.mark.usefixtures("keyed")
def test_status_tells_what_is_served_and_why_the_newest_is_not(config: Path) -> None:
    with answering(json.dumps(REFUSED)) as url:
        result = run("status", "--url", url, "--config", config)
        document = run("status", "--url", f"{url}/v1", "--config", config, "--json")
    assert (result.exit_code, document.exit_code) == (1, 1)
    told = {tuple(line.split(maxsplit=1)) for line in map(str.rstrip, result.stdout.splitlines())}
    assert ("refused", "bbbbbbbbbbbb at 2026-11-30T00:01:00+00:00") in told
    assert ("problem", "experts.yaml:3:1: experts: unknown key�[31m") in told
    assert f"{load_experts(config).digest}, not what is served: {config}" in result.stdout
    assert json.loads(document.stdout) == REFUSED | {"here": load_experts(config).digest}


@pytest.mark.usefixtures("keyed")
def test_status_is_fine_where_the_files_are_what_is_served(config: Path) -> None:
    fine = REFUSED | {"status": "serving", "config": load_experts(config).digest, "problems": [], "wanted": None}
    with answering(json.dumps(fine)) as url:
        result = run("status", "--url", url, "--config", config)
    assert result.exit_code == 0
    assert "what is served" in result.stdout
    assert "not what is served" not in result.stdout


@pytest.mark.parametrize("body", ["[]", "{", "{}", '{"status": 5}', "[" * 100_000])
@pytest.mark.usefixtures("keyed")
def test_what_is_no_gateway_is_said_to_be_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    with answering(body) as url:
        assert "no moe-gateway that tells its configuration" in refused(capsys, monkeypatch, "status", "--url", url)


def test_status_asks_for_the_admin_key_and_for_a_gateway(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering("{}") as url:
        assert "set MOE_GATEWAY_ADMIN_KEY" in refused(capsys, monkeypatch, "status", "--url", url)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert "no gateway answers there" in refused(capsys, monkeypatch, "status", "--url", url)
    assert "--url: not an http://" in refused(capsys, monkeypatch, "status", "--url", "x", status=2)


def test_a_real_gateway_tells_what_it_serves(start: Start, servers: list[FakeServer], tmp_path: Path) -> None:
    text = experts_yaml(servers[0])
    (tmp_path / "experts.yaml").write_text(text)
    gateway = start(text, config=tmp_path / "experts.yaml")
    result = run("status", "--url", gateway.url, "--config", tmp_path / "experts.yaml")
    assert result.exit_code == 0, result.output
    assert "status    serving" in result.stdout
    assert f"here      {load_experts(tmp_path / 'experts.yaml').digest}, what is served" in result.stdout


def test_a_file_of_many_lines_that_are_alike_is_compared_all_the_same() -> None:
    """As many as a file may have: matched each with each they would take an hour."""
    alike = "\n" * 100_000
    one, other = (Sources(Path("experts.yaml"), {"experts.yaml": f"{a}{alike}b: 1\n"}) for a in ("a: 1", "a: 2"))
    (file,) = difference(one, other).files
    assert (file.lines[1:3], file.added, file.removed) == (("-a: 1", "+a: 2"), 1, 1)
