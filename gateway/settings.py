"""How one gateway process is set up: what the command line and the environment say."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from gateway.errors import SettingsError

KIB = 1024
RESERVED_NAMES = (
    "anonymous",
    "other",
)  # in ledger and metrics: callers without a key, and those beyond the first fifty
MIB = 1024 * KIB


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """AUTO is the console's on a terminal, else JSON."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class Watch(StrEnum):
    """How changes of experts.yaml are seen: as the system tells of them, by looking every two seconds, or not at all."""

    AUTO = "auto"
    POLL = "poll"
    OFF = "off"


@dataclass(frozen=True)
class Settings:
    """`keys` maps the name of each key to the key; with none set every caller may use /v1. `admin_key` opens /admin.
    Sizes are in bytes, times in seconds.

    Where `uds` is set it is listened on in place of `host` and `port`; `uds_mode` is the mode of its file. `max_connections` is
    of each process, and None is as many as it may have files open for. On a signal to end, it listens for `drain_delay` more;
    what is then in flight has `drain_seconds`.

    `ledger` is the URL of the database that requests are written into, None where they are not; it may hold a password. Rows are
    kept for `ledger_keep`, None for ever, and prompts are kept in them with `ledger_prompts` alone. `observers` are those of
    installed packages that are told of finished requests.
    """

    config: Path = Path("experts.yaml")
    host: str = "127.0.0.1"
    port: int = 8080
    uds: Path | None = None
    uds_mode: int = 0o600
    tls_cert: Path | None = None
    tls_key: Path | None = None
    processes: int = 1
    backlog: int = 2048
    max_connections: int | None = None
    max_header_bytes: int = 64 * KIB
    header_seconds: float = 10.0
    keep_alive_seconds: float = 75.0
    drain_delay: float = 0.0
    drain_seconds: float = 30.0
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    admin_key: str | None = field(default=None, repr=False)
    protect_metrics: bool = False
    max_body_bytes: int = 32 * MIB
    health_interval: float = 5.0
    client_seconds: float = 60.0  # a client that takes nothing for so long is gone, whatever its connection says
    state: Path = Path(".moe-gateway")
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.AUTO
    ledger: str | None = field(default=None, repr=False)
    ledger_keep: float | None = None
    ledger_prompts: bool = False
    watch: Watch = Watch.OFF
    retrain_seconds: float = 1800.0
    observers: tuple[str, ...] = ()


def keys_from_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The named keys of MOE_GATEWAY_KEYS. Raises SettingsError, without showing any key."""
    keys: dict[str, str] = {}
    for i, pair in enumerate(filter(None, map(str.strip, environment.get("MOE_GATEWAY_KEYS", "").split(","))), 1):
        name, separator, key = pair.partition(":")
        if not separator or not name.strip() or not key.strip():
            raise SettingsError(
                f"MOE_GATEWAY_KEYS: entry {i} is not name:key; write MOE_GATEWAY_KEYS=team-a:key,team-b:key"
            )
        if name.strip() in RESERVED_NAMES:
            raise SettingsError(f"MOE_GATEWAY_KEYS: no key may be named {name.strip()!r}, as callers without one are")
        if name.strip() in keys:
            raise SettingsError(f"MOE_GATEWAY_KEYS: the name {name.strip()!r} stands twice")
        keys[name.strip()] = key.strip()
    return keys


def admin_key_from_environment(environment: Mapping[str, str] = os.environ) -> str | None:
    """The key of MOE_GATEWAY_ADMIN_KEY, None where it is not set."""
    return environment.get("MOE_GATEWAY_ADMIN_KEY", "").strip() or None


def check_exposure(settings: Settings) -> None:
    """Raises SettingsError where no key is set and the gateway would listen to other machines, or protect its metrics."""
    if settings.protect_metrics and not settings.keys:
        raise SettingsError("--protect-metrics needs keys to ask for; set MOE_GATEWAY_KEYS=name:key")
    if settings.keys or settings.uds is not None or is_loopback(settings.host):
        return
    raise SettingsError(
        f"refusing to listen on {settings.host} with no key set: anyone who reaches it could use your models. "
        "Set MOE_GATEWAY_KEYS=name:key (for example name:$(openssl rand -hex 24)), or listen on 127.0.0.1."
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. A name other than localhost counts as reachable."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
