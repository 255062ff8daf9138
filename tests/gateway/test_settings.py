from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import SettingsError
from gateway.settings import (
    Settings,
    admin_key_from_environment,
    check_exposure,
    is_loopback,
    keys_from_environment,
)

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12)
KEYS = st.text("abcdefABCDEF0123456789:-_/+=", min_size=1, max_size=40)
EVERYWHERE = "0.0.0.0"  # noqa: S104 - judged here, never listened on
SPACES = st.text(" \t", max_size=2)


@given(st.dictionaries(NAMES, KEYS), SPACES)
def test_every_named_key_is_read_as_it_was_written(keys: dict[str, str], space: str) -> None:
    written = ",".join(f"{space}{name}{space}:{space}{key}{space}" for name, key in keys.items())
    assert keys_from_environment({"MOE_GATEWAY_KEYS": written}) == keys


@pytest.mark.parametrize("written", ["", "  ", ",", " , ,"])
def test_a_variable_that_names_no_key_leaves_the_gateway_open(written: str) -> None:
    assert keys_from_environment({"MOE_GATEWAY_KEYS": written}) == {}
    assert keys_from_environment({}) == {}


def test_a_trailing_comma_adds_no_key() -> None:
    assert keys_from_environment({"MOE_GATEWAY_KEYS": "a:1,,b:2,"}) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("bad", ["hunter2", "hunter2:", ":hunter2", "hunter2: ", " :hunter2", ":"])
def test_an_entry_that_is_no_pair_is_refused_by_its_place_and_never_shown(bad: str) -> None:
    with pytest.raises(SettingsError, match="entry 2 is not name:key") as caught:
        keys_from_environment({"MOE_GATEWAY_KEYS": f"a:1,{bad},c:3"})
    assert "hunter2" not in str(caught.value)


def test_a_name_that_stands_twice_is_refused_without_showing_its_keys() -> None:
    with pytest.raises(SettingsError, match="'team' stands twice") as caught:
        keys_from_environment({"MOE_GATEWAY_KEYS": "team:hunter2,team:swordfish"})
    assert "hunter2" not in str(caught.value)
    assert "swordfish" not in str(caught.value)


def test_keys_are_not_shown_when_settings_are_printed() -> None:
    assert "hunter2" not in repr(Settings(keys={"a": "hunter2"}))


def test_the_promised_defaults() -> None:
    settings = Settings()
    assert (settings.config, settings.host, settings.port) == (Path("experts.yaml"), "127.0.0.1", 8080)
    assert settings.max_body_bytes == 32 * 1024 * 1024
    assert not settings.protect_metrics


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost"])
def test_only_this_machine_reaches_a_loopback_address(host: str) -> None:
    assert is_loopback(host)
    check_exposure(Settings(host=host))


@pytest.mark.parametrize(
    "host", [EVERYWHERE, "::", "[::]", "192.168.1.7", "gateway.example", "localhost.example", "127.0.0.1.example", ""]
)
def test_listening_to_others_without_a_key_is_refused_with_what_to_do(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(SettingsError, match=r"MOE_GATEWAY_KEYS=name:key.*127\.0\.0\.1"):
        check_exposure(Settings(host=host))
    check_exposure(Settings(host=host, keys={"team": "key"}))


@pytest.mark.parametrize("host", ["127.0.0.1", EVERYWHERE])
def test_only_this_machine_reaches_a_unix_socket(host: str) -> None:
    check_exposure(Settings(host=host, uds=Path("x.sock")))
    with pytest.raises(SettingsError, match="MOE_GATEWAY_KEYS=name:key"):
        check_exposure(Settings(uds=Path("x.sock"), protect_metrics=True))


@pytest.mark.parametrize("host", ["127.0.0.1", EVERYWHERE])
def test_metrics_cannot_be_protected_where_there_is_no_key_to_ask_for(host: str) -> None:
    with pytest.raises(SettingsError, match="MOE_GATEWAY_KEYS=name:key"):
        check_exposure(Settings(host=host, protect_metrics=True))
    check_exposure(Settings(host=host, protect_metrics=True, keys={"team": "key"}))


@pytest.mark.parametrize(
    ("said", "key"), [({}, None), ({"MOE_GATEWAY_ADMIN_KEY": " "}, None), ({"MOE_GATEWAY_ADMIN_KEY": " k-1\n"}, "k-1")]
)
def test_the_admins_key_is_none_where_none_is_set(said: dict[str, str], key: str | None) -> None:
    assert admin_key_from_environment(said) == key
    assert "k-1" not in repr(Settings(admin_key=key))


@pytest.mark.parametrize("name", ["anonymous", "other"])
def test_no_key_has_the_name_of_those_without_one(name: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        keys_from_environment({"MOE_GATEWAY_KEYS": f"team:a,{name}:secret-key"})
    assert "secret-key" not in str(caught.value)
