"""What one may ask of the ledger's figures: by what they are grouped, of which time, of whom."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from zoneinfo import ZoneInfo

from gateway.ledger.errors import LedgerError

TIMES = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d", "month": "%Y-%m"}
# How each group is called: its column in the ledger, None for those of time.
GROUPS: dict[str, str | None] = {
    "expert": "expert",
    "model": "model",
    "domain": "domain",
    "key": "caller",
    **dict.fromkeys(TIMES),
    "endpoint": "endpoint",
    "status": "status",
    "outcome": "outcome",
    "reason": "reason",
}
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
MOST_NAMED = 100  # experts or keys to keep to
SHOWN = 40  # characters of what is wrong
DEFAULTS = {"by": "expert", "since": "7d", "until": "now", "tz": "UTC"}
EVER = datetime(2020, 1, 1, tzinfo=UTC)  # before there was any ledger
LATEST = datetime(9999, 12, 30, tzinfo=UTC)  # that is a time in every zone
WHEN = "a time ago such as 7d, 24h or 30m, a day such as 2026-11-30, or a time such as 2026-11-30T12:00"


class AskedError(LedgerError):
    """`param` is the one that is wrong."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True)
class Asked:
    """Requests that ended from `since` on and before `until`, where that is not None. Days and hours are those of `zone`; no name
    in `experts` or `keys` is every one."""

    by: tuple[str, ...]
    since: datetime
    until: datetime | None = None
    zone: tzinfo = UTC
    experts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


def read_asked(
    words: Mapping[str, str], experts: Sequence[str] = (), keys: Sequence[str] = (), now: datetime | None = None
) -> Asked:
    """What was asked in `words`: by, since, until, tz; DEFAULTS stand for those that are not there. Raises AskedError."""
    said, now = {**DEFAULTS, **words}, now or datetime.now(UTC)
    zone = _zone(said["tz"])
    since = EVER if said["since"] == "all" else _when("since", said["since"], zone, now)
    # Now is an open end: clocks of several machines differ, and what another one wrote may lie ahead.
    until = None if said["until"] == "now" else _when("until", said["until"], zone, now)
    if since >= (until or now):
        raise AskedError("since", "since is not before until")
    return Asked(_groups(said["by"]), since, until, zone, _names("expert", experts), _names("key", keys))


def _groups(said: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in said.split(",")) if said.strip() else ()
    for name in names:
        if name not in GROUPS:
            near = get_close_matches(name[:SHOWN], GROUPS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(GROUPS)}"
            raise AskedError("by", f"there is no group {name[:SHOWN]!r}; {hint}")
    if len(set(names)) != len(names):
        raise AskedError("by", "one group stands twice")
    return names


def _when(param: str, said: str, zone: tzinfo, now: datetime) -> datetime:
    """In UTC."""
    try:
        if ago := re.fullmatch(r"(\d{1,6})([mhdw])", said, re.ASCII):
            return max(EVER, now - timedelta(**{UNITS[ago[2]]: int(ago[1])}))
        if re.fullmatch(r"\d{4}-\d\d-\d\d(T.*)?", said[:SHOWN], re.ASCII):
            told = datetime.fromisoformat(said)
            return min(LATEST, max(EVER, (told if told.tzinfo else told.replace(tzinfo=zone)).astimezone(UTC)))
    except (ValueError, OverflowError):
        pass
    raise AskedError(param, f"{param} is not {said[:SHOWN]!r}; write {WHEN}")


def _zone(said: str) -> tzinfo:
    if said.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(said)
    except (ValueError, OSError, LookupError):
        raise AskedError("tz", f"tz is not {said[:SHOWN]!r}; write a time zone such as Europe/Berlin") from None


def _names(param: str, said: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for one in said for name in map(str.strip, one.split(",")) if name))
    if len(names) > MOST_NAMED:
        raise AskedError(param, f"at most {MOST_NAMED} names may be given")
    if not all(name.isprintable() for name in names):
        raise AskedError(param, f"a name of {param} is not printable")
    return names
