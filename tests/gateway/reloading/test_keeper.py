"""The keeper over real files: what is seen, what is taken up, what is refused and how loudly. Who serves is made up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.history import History
from gateway.reloading import keeper as module
from gateway.reloading.errors import ReloadError
from gateway.reloading.keeper import Keeper
from gateway.reloading.preparing import Candidate
from gateway.reloading.status import Status
from gateway.settings import Settings, Watch
from router.artifact import PACKAGED
from router.experts import load_experts
from tests.fakes.upstream import PATIENCE
from tests.gateway.reloading.test_trial import LONG, shipped, there


def text(*experts: str, **about: Any) -> str:
    at = {"vllm": ["http://127.0.0.1:9/v1"]}
    entries = {name: {"model": "m", "domains": ["general"], "upstream": at, **about} for name in experts}
    return json.dumps({"version": 1, "experts": entries})


@dataclass
class House:
    """A configuration, and what is served by it."""

    folder: Path
    settings: Settings
    served: list[Candidate] = field(default_factory=list)
    told: list[tuple[Status, str | None]] = field(default_factory=list)
    refuse: str = ""
    held: asyncio.Event | None = None
    begun: list[Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        running = Candidate(load_experts(self.config), shipped(), PACKAGED)
        self.keeper = Keeper(self.settings, running, self.serve, (), lambda *told: self.told.append(told))

    @property
    def config(self) -> Path:
        return self.settings.config

    async def serve(self, candidate: Candidate) -> None:
        self.begun.append(candidate)
        if self.held is not None:
            await self.held.wait()
        if self.refuse:
            raise ReloadError("not_started", [self.refuse])
        self.served.append(candidate)

    @property
    def experts(self) -> list[str]:
        """Of what is served."""
        return list(self.keeper.status.experts)

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - files and tasks tell nobody
                await asyncio.sleep(0.02)

    @property
    def outcomes(self) -> list[str]:
        return [outcome for _, outcome in self.told if outcome]


@contextlib.asynccontextmanager
async def housed(folder: Path, watch: Watch = Watch.OFF, first: str = "") -> AsyncIterator[House]:
    config = folder / "config" / "experts.yaml"
    config.parent.mkdir(exist_ok=True)
    if not config.is_symlink():
        config.write_text(first or text("one"))
    house = House(folder, Settings(config=config, state=folder / "state", watch=watch))
    house.keeper.start()
    try:
        if watch is not Watch.OFF:
            await asyncio.sleep(0.3)  # it has looked once, and watches
        yield house
    finally:
        await house.keeper.close()


async def test_a_file_that_is_saved_is_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with housed(tmp_path, Watch.AUTO) as house:
        assert house.served == []
        house.config.write_text(text("one", "two"))
        await house.until(lambda: house.experts == ["one", "two"])
        assert house.keeper.status.changes == ("expert two added",)
        assert house.outcomes == ["ok"]
    (line,) = [record for record in caplog.records if record.getMessage() == "reloaded"]
    assert vars(line)["changes"] == ("expert two added",)


@pytest.mark.parametrize("in_place", [True, False])
async def test_of_ten_saves_in_a_second_the_last_is_served_and_none_that_is_half_there(
    tmp_path: Path, in_place: bool
) -> None:
    async with housed(tmp_path, Watch.AUTO) as house:
        for i in range(10):
            if in_place:
                with house.config.open("w") as file:
                    whole = text("one", f"save-{i}")
                    for part in (whole[:40], whole[40:]):
                        file.write(part)
                        file.flush()
                        await asyncio.sleep(0.05)
            else:
                other = house.config.with_suffix(".new")
                other.write_text(text("one", f"save-{i}"))
                other.replace(house.config)
                await asyncio.sleep(0.1)
        await house.until(lambda: house.experts == ["one", "save-9"])
        # On a busy machine the writer is held up, and what it has written by then is refused: but it is never served.
        served = [list(candidate.file.experts) for candidate in house.served]
        assert all(experts in [["one", f"save-{i}"] for i in range(10)] for experts in served)
        assert in_place or "failed" not in house.outcomes
        await asyncio.sleep(0.3)
        assert house.experts == ["one", "save-9"]


async def test_links_that_kubernetes_swaps(tmp_path: Path) -> None:
    mount = tmp_path / "config"

    def publish(version: str, *experts: str) -> None:
        (mount / version).mkdir(parents=True)
        (mount / version / "experts.yaml").write_text(text(*experts))
        (mount / "..data_tmp").symlink_to(version)
        (mount / "..data_tmp").replace(mount / "..data")
        for old in mount.glob("..2*"):
            if old.name != version:
                shutil.rmtree(old)

    publish("..2026_1", "one")
    (mount / "experts.yaml").symlink_to("..data/experts.yaml")
    async with housed(tmp_path, Watch.AUTO) as house:
        for version, expert in (("..2026_2", "two"), ("..2026_3", "three")):
            publish(version, "one", expert)
            await house.until(lambda expert=expert: house.experts == ["one", expert])  # type: ignore[misc]
        assert house.outcomes == ["ok", "ok"]


async def test_what_it_extends_and_its_examples_are_watched_too_from_when_they_are_named_on(tmp_path: Path) -> None:
    async with housed(tmp_path, Watch.AUTO) as house:
        base = house.config.with_name("base.yaml")
        base.write_text(text("one", "two"))
        house.config.write_text("extends: base.yaml\nversion: 1\n")
        await house.until(lambda: house.experts == ["one", "two"])
        base.write_text(text("one", "three"))
        await house.until(lambda: house.experts == ["one", "three"])
        assert house.keeper.status.files == ("experts.yaml", "base.yaml")
        base.unlink()
        await house.until(lambda: house.keeper.status.state == "refused")
        assert house.experts == ["one", "three"]
        base.write_text(text("one", "four"))
        await house.until(lambda: house.experts == ["one", "four"])


def emptied(config: Path) -> None:
    config.write_text("")


def misspelt(config: Path) -> None:
    config.write_text(config.read_text().replace("experts", "exprts"))


def deleted(config: Path) -> None:
    config.unlink()


def a_folder(config: Path) -> None:
    config.unlink()
    config.mkdir()


def a_pipe(config: Path) -> None:
    config.unlink()
    os.mkfifo(config)


def too_large(config: Path) -> None:
    config.write_text(config.read_text() + "\n" + "#" * 10_000_000)


def in_utf_16(config: Path) -> None:
    config.write_text(config.read_text(), "utf-16")


def without_its_folder(config: Path) -> None:
    shutil.rmtree(config.parent)


BAD = (emptied, misspelt, deleted, a_folder, a_pipe, too_large, in_utf_16, without_its_folder)


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: str(spoil.__name__))
async def test_what_is_bad_changes_nothing_and_is_loud_once_until_it_is_mended(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    async with housed(tmp_path, Watch.AUTO) as house:
        before = house.keeper.status.config
        spoil(house.config)
        await house.until(lambda: house.keeper.status.state == "refused")
        await asyncio.sleep(0.4)
        status = house.keeper.status
        assert (status.config, status.code, house.served) == (before, "invalid_config", [])
        assert status.problems
        assert all(problem.startswith("experts.yaml:") for problem in status.problems)
        assert status.tried is not None
        assert status.brief()["status"] == "refused"
        assert house.outcomes == ["failed"]
        assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1
        if house.config.is_dir():
            house.config.rmdir()
        house.config.unlink(missing_ok=True)
        house.config.parent.mkdir(exist_ok=True)
        house.config.write_text(text("one", "mended"))
        await house.until(lambda: house.experts == ["one", "mended"])
        assert house.keeper.status.problems == ()


async def test_a_file_that_is_wrong_for_a_moment_is_nothing_to_tell_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.6)
    async with housed(tmp_path, Watch.AUTO) as house:
        house.config.write_text("version: 1\nexperts: {")
        await asyncio.sleep(0.5)
        house.config.write_text(text("one", "two"))
        await house.until(lambda: house.experts == ["one", "two"])
        assert house.outcomes == ["ok"]


async def test_what_runs_standing_there_again_ends_a_refusal(tmp_path: Path) -> None:
    async with housed(tmp_path) as house:
        good = house.config.read_text()
        house.config.write_text("{")
        with pytest.raises(ReloadError) as raised:
            await house.keeper.reload()
        assert raised.value.code == "invalid_config"
        house.config.write_text(good)
        assert (await house.keeper.reload()).status == "unchanged"
        assert (house.keeper.status.state, house.keeper.status.problems) == ("serving", ())
        assert house.outcomes == ["failed", "ok"]
        assert house.served == []


async def test_nothing_to_reload_is_said_and_does_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with housed(tmp_path) as house:
        assert (await house.keeper.reload()).status == "unchanged"
        assert (house.served, house.outcomes) == ([], [])
        assert "nothing to reload" in caplog.text


async def test_a_secret_that_changes_is_taken_up_though_no_text_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE_KEY", "first")
    first = text("one").replace('/v1"]', '/v1"], "api_key": "${ONE_KEY}"')
    async with housed(tmp_path, first=first) as house:
        monkeypatch.setenv("ONE_KEY", "second")
        answer = await house.keeper.reload()
        assert (answer.status, answer.changes) == ("reloaded", ("expert one changed: upstream.api_key",))


async def test_what_does_not_start_is_refused(tmp_path: Path) -> None:
    async with housed(tmp_path) as house:
        house.refuse = "an upstream does not start"
        house.config.write_text(text("one", "two"))
        with pytest.raises(ReloadError, match="does not start"):
            await house.keeper.reload()
        assert (house.experts, house.keeper.status.code) == (["one"], "not_started")


async def test_an_engine_that_does_not_run_is_refused(tmp_path: Path) -> None:
    async with housed(tmp_path) as house:
        house.config.write_text(text("one", upstream={"embedded": "smollm2"}))
        with pytest.raises(ReloadError, match="smollm2 is not running: it is launched at start-up alone"):
            await house.keeper.reload()


async def test_reloads_at_once_are_one_and_a_newer_file_waits_for_no_longer_than_the_swap(tmp_path: Path) -> None:
    async with housed(tmp_path) as house:
        house.held = asyncio.Event()
        house.config.write_text(text("one", "two"))
        first = [asyncio.create_task(house.keeper.reload()) for _ in range(5)]
        await house.until(lambda: house.begun != [])  # what it prepared is being swapped in
        house.config.write_text(text("one", "three"))
        newer = asyncio.create_task(house.keeper.reload())
        await asyncio.sleep(0.1)
        assert not newer.done()
        house.held.set()
        last = await newer
        assert {(await task).status for task in first} == {"reloaded"}
        assert last.experts == ("one", "three")
        assert [list(candidate.file.experts)[-1] for candidate in house.served] == ["two", "three"]


async def test_a_training_is_given_up_for_a_newer_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with housed(tmp_path) as house:
        whole = json.loads(text("one"))
        examples = [f"May clause {i} of a lease be enforced in court?" for i in range(8)]
        whole["domains"] = {"legal": {"examples": examples}}
        whole["experts"]["one"]["domains"].append("legal")
        house.config.write_text(json.dumps(whole))
        first = asyncio.create_task(house.keeper.reload())
        trained = await there()
        house.config.write_text(text("one", "two"))
        assert (await house.keeper.reload()).experts == ("one", "two")
        with pytest.raises(ReloadError, match="a newer file took its place") as given_up:
            await first
        assert given_up.value.code == "superseded"
        assert not trained.is_running()
        assert (house.experts, house.outcomes) == (["one", "two"], ["ok"])
        assert "superseded by a newer file" in caplog.text
        assert "reload failed" not in caplog.text


async def test_served_configurations_are_remembered_and_one_that_cannot_be_is_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with housed(tmp_path) as house:
        house.config.write_text(text("one", "two"))
        await house.keeper.reload()
        folder = tmp_path / "state" / "history"
        await house.until(lambda: len(list(History(folder).entries(house.config))) == 2)
        shutil.rmtree(folder)
        folder.write_text("in the way")
        house.config.write_text(text("one", "three"))
        assert (await house.keeper.reload()).status == "reloaded"
        await house.until(lambda: "the history of configurations cannot be written" in caplog.text)


CODE = "{version: 1, tests: [{prompt: Sort a list in Python, expert: %s}]}\n"


@pytest.mark.timeout(4 * LONG)
async def test_routing_tests_that_are_saved_are_run_on_what_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with housed(tmp_path, Watch.AUTO, text("one", "two")) as house:
        tests = house.config.parent / "routes.test.yaml"
        tests.write_text(CODE % "three")
        await house.until(lambda: house.keeper.status.warnings != (), LONG)
        (warning,) = house.keeper.status.warnings
        assert warning.startswith("routes.test.yaml:1:")
        assert "no expert 'three'" in warning
        assert "what is served fails its routing tests" in caplog.text
        tests.write_text(CODE % "one")
        await house.until(lambda: house.keeper.status.warnings == (), LONG)
        assert "passes its routing tests again" in caplog.text
        tests.write_text(CODE % "two")
        await house.until(lambda: house.keeper.status.warnings != (), LONG)
        assert "went to one, not to two" in house.keeper.status.warnings[0]
        tests.unlink()
        await house.until(lambda: house.keeper.status.warnings == (), LONG)
        assert (house.served, house.outcomes, house.keeper.status.state) == ([], [], "serving")


@pytest.mark.timeout(3 * LONG)
async def test_at_the_start_routing_tests_are_run_and_what_speaks_against_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "routes.test.yaml").write_text(CODE % "two")
    async with housed(tmp_path, first=text("one", "two")) as house:
        await house.until(lambda: house.keeper.status.warnings != (), LONG)
        assert (await house.keeper.reload()).status == "unchanged"
        house.config.write_text(text("two", "one"))  # of two alike the first is asked
        assert (await house.keeper.reload()).status == "reloaded"
        assert house.keeper.status.warnings == ()


async def test_routing_tests_that_cannot_be_run_are_told_by_the_name_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "routes.test.yaml").write_bytes(b"\xff")
    async with housed(tmp_path) as house:
        await house.until(lambda: house.keeper.status.warnings != ())
        (warning,) = house.keeper.status.warnings
        assert warning.startswith("routes.test.yaml:1:1: ")


async def test_looking_now_and_then_sees_it_too(tmp_path: Path) -> None:
    async with housed(tmp_path, Watch.POLL) as house:
        house.config.write_text(text("one", "two"))
        await house.until(lambda: house.experts == ["one", "two"])


def test_a_progress_and_a_status_in_words() -> None:
    status = Status(config="c", router="r", since=0.0, experts=("one",))
    assert status.described()["since"] == "1970-01-01T00:00:00+00:00"
    assert status.described()["status"] == "serving"
    assert replace(Settings(), watch=Watch.AUTO).watch == "auto"
