"""Whoever watches hears of every way in which files change, over the real system."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.reloading.watcher import wakes
from gateway.settings import Watch
from tests.fakes.upstream import PATIENCE

SELDOM = 600.0  # seconds between looks, longer than any test waits: what is heard, the system told


@contextlib.asynccontextmanager
async def watched(path: Path, mode: Watch = Watch.AUTO, seconds: float = SELDOM) -> AsyncIterator[asyncio.Queue[bool]]:
    """What is heard of `path`, from when it is watched on."""
    heard: asyncio.Queue[bool] = asyncio.Queue()

    async def listen() -> None:
        async for _ in wakes(lambda: [path], mode, seconds):
            heard.put_nowait(True)

    task = asyncio.create_task(listen())
    try:
        if mode is Watch.AUTO:
            await asyncio.wait_for(heard.get(), PATIENCE)  # before it watches
            await asyncio.sleep(0.2)
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def in_place(path: Path) -> None:
    path.write_text("new")


def by_rename(path: Path) -> None:
    other = path.with_name(".experts.yaml.swp")
    other.write_text("new")
    other.replace(path)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [in_place, by_rename, gone], ids=lambda change: str(change.__name__))
async def test_a_file_that_changes_is_heard_of(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "experts.yaml"
    path.write_text("old")
    async with watched(path) as heard:
        change(path)
        assert await asyncio.wait_for(heard.get(), PATIENCE)


@pytest.mark.parametrize("name", ["a\0b/key", "half \ud800/key"])
async def test_a_name_that_no_file_has_ends_no_watching(tmp_path: Path, name: str) -> None:
    """As a secret of another save may be named; those that watch go on and hear of the next one."""
    (tmp_path / "seen").write_text("old")
    heard: asyncio.Queue[bool] = asyncio.Queue()

    async def listen() -> None:
        async for _ in wakes(lambda: [tmp_path / name, tmp_path / "seen"], Watch.AUTO, SELDOM):
            heard.put_nowait(True)

    task = asyncio.create_task(listen())
    try:
        await asyncio.wait_for(heard.get(), PATIENCE)
        await asyncio.sleep(0.2)
        in_place(tmp_path / "seen")
        assert await asyncio.wait_for(heard.get(), PATIENCE)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_mount_of_kubernetes_is_heard_of_each_time_that_its_link_is_swapped(tmp_path: Path) -> None:
    mount = tmp_path / "config"
    path = mount / "experts.yaml"

    def publish(version: str) -> None:
        (mount / version).mkdir(parents=True)
        (mount / version / "experts.yaml").write_text(version)
        (mount / "..data_tmp").symlink_to(version)
        (mount / "..data_tmp").replace(mount / "..data")
        for old in mount.glob("..2*"):
            if old.name != version:
                shutil.rmtree(old)

    publish("..2026_1")
    path.symlink_to("..data/experts.yaml")
    async with watched(path) as heard:
        for version in ("..2026_2", "..2026_3"):
            publish(version)
            assert path.read_text() == version
            assert await asyncio.wait_for(heard.get(), PATIENCE)
            await asyncio.sleep(0.5)
            while not heard.empty():
                heard.get_nowait()


async def test_a_file_that_a_link_leads_to_is_heard_of_where_it_is(tmp_path: Path) -> None:
    there = tmp_path / "there" / "experts.yaml"
    there.parent.mkdir()
    there.write_text("old")
    path = tmp_path / "here" / "experts.yaml"
    path.parent.mkdir()
    path.symlink_to(there)
    async with watched(path) as heard:
        in_place(there)
        assert await asyncio.wait_for(heard.get(), PATIENCE)


async def test_a_link_to_the_whole_folder_is_heard_of_when_it_leads_elsewhere(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "experts.yaml").write_text(version)
    (tmp_path / "current").symlink_to("v1")
    async with watched(tmp_path / "current" / "experts.yaml") as heard:
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").replace(tmp_path / "current")
        assert await asyncio.wait_for(heard.get(), PATIENCE)


async def test_a_folder_that_was_gone_is_looked_at_when_it_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "config" / "experts.yaml"
    path.parent.mkdir()
    path.write_text("old")
    async with watched(path, seconds=0.3) as heard:
        shutil.rmtree(path.parent)
        assert await asyncio.wait_for(heard.get(), PATIENCE)
        path.parent.mkdir()
        path.write_text("new")
        while not heard.empty():
            heard.get_nowait()
        assert await asyncio.wait_for(heard.get(), PATIENCE)


async def test_links_that_lead_to_each_other_are_no_end(tmp_path: Path) -> None:
    path = tmp_path / "experts.yaml"
    path.symlink_to("other.yaml")
    (tmp_path / "other.yaml").symlink_to("experts.yaml")
    async with watched(path) as heard:
        path.unlink()
        assert await asyncio.wait_for(heard.get(), PATIENCE)


async def test_looking_wakes_without_being_told_and_off_never(tmp_path: Path) -> None:
    async with watched(tmp_path / "nowhere", Watch.POLL, seconds=0.05) as heard:
        assert await asyncio.wait_for(heard.get(), PATIENCE)
    assert [_ async for _ in wakes(lambda: [tmp_path], Watch.OFF, 0.01)] == []
