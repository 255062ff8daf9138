from __future__ import annotations

import dataclasses

import pytest

from router.fleet import EMPTY_FLEET, Fleet


def test_of_an_empty_fleet_nothing_is_known_and_nobody_is_down() -> None:
    assert Fleet() == EMPTY_FLEET
    assert (dict(EMPTY_FLEET.latency), EMPTY_FLEET.down) == ({}, frozenset())


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EMPTY_FLEET.down = frozenset({"a"})  # type: ignore[misc]
