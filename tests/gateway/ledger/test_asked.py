from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.asked import DEFAULTS, EVER, GROUPS, MOST_NAMED, AskedError, read_asked

NOW = datetime(2026, 11, 29, 20, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "tz", "begins"),
    [
        ("7d", "UTC", NOW - timedelta(days=7)),
        ("24h", "Europe/Berlin", NOW - timedelta(hours=24)),
        ("30m", "UTC", NOW - timedelta(minutes=30)),
        ("2w", "UTC", NOW - timedelta(weeks=2)),
        ("99999w", "UTC", EVER),
        ("all", "UTC", EVER),
        ("2026-11-01", "UTC", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01", "Europe/Berlin", datetime(2026, 10, 31, 23, tzinfo=UTC)),
        ("2026-11-01T12:00", "America/New_York", datetime(2026, 11, 1, 17, tzinfo=UTC)),
        ("2026-11-01T12:00+02:00", "America/New_York", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2019-01-01", "Europe/Berlin", EVER),
    ],
)
def test_a_time_may_be_said_in_several_ways(since: str, tz: str, begins: datetime) -> None:
    asked = read_asked({"since": since, "tz": tz}, now=NOW)
    assert (asked.since, asked.until) == (begins, None)
    assert asked.zone == (UTC if tz == "UTC" else ZoneInfo(tz))


def test_an_end_may_be_said_too_and_names_are_taken_apart() -> None:
    words = {"by": " expert, key ,day", "since": "2026-11-01", "until": "2026-11-08"}
    asked = read_asked(words, ["coder,general", "coder"], ["team-a, =1+1"], NOW)
    assert asked.by == ("expert", "key", "day")
    assert asked.until == datetime(2026, 11, 8, tzinfo=UTC)
    assert (asked.experts, asked.keys) == (("coder", "general"), ("team-a", "=1+1"))
    assert read_asked({"by": ""}, now=NOW).by == ()
    assert read_asked({}, now=NOW).by == ("expert",)


@pytest.mark.parametrize(
    ("words", "param", "told"),
    [
        ({"by": "expart"}, "by", "did you mean expert?"),
        ({"by": "zzzz"}, "by", "there are expert, model, domain, key, hour"),
        ({"by": "day,day"}, "by", "twice"),
        ({"by": "day,"}, "by", "there is no group ''"),
        ({"since": "7"}, "since", "such as 7d"),
        ({"since": "2026-02-30"}, "since", "such as 7d"),
        ({"since": "9999999999d"}, "since", "such as 7d"),
        ({"since": "999999w"}, "since", "such as 7d"),
        ({"since": "0001-01-01", "tz": "Europe/Berlin"}, "since", "such as 7d"),
        ({"since": "2026-11-01" + "0" * 5000}, "since", "such as 7d"),
        ({"until": "all"}, "until", "until is not 'all'"),
        ({"since": "1h", "until": "2h"}, "since", "not before until"),
        ({"since": "2027-01-01"}, "since", "not before until"),
        ({"tz": "Europe"}, "tz", "Europe/Berlin"),
        ({"tz": "../../etc/passwd"}, "tz", "Europe/Berlin"),
        ({"tz": "x" * 5000}, "tz", "Europe/Berlin"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_name_and_not_repeated_at_length(
    words: dict[str, str], param: str, told: str
) -> None:
    with pytest.raises(AskedError) as caught:
        read_asked(words, now=NOW)
    assert caught.value.param == param
    assert told in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("names", [["a\0b"], ["\ud800"], ["a\nb"], [f"k{i}" for i in range(MOST_NAMED + 1)]])
def test_names_that_no_key_has_and_too_many_of_them_are_refused(names: list[str]) -> None:
    with pytest.raises(AskedError) as caught:
        read_asked({}, (), names, NOW)
    assert caught.value.param == "key"


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(list(DEFAULTS)), st.text(max_size=30)), st.lists(st.text(), max_size=3))
def test_whatever_is_said_is_understood_or_refused(words: dict[str, str], names: list[str]) -> None:
    try:
        asked = read_asked(words, names, names, NOW)
    except AskedError as error:
        assert error.param in (*DEFAULTS, "expert", "key")  # noqa: PT017
    else:
        assert asked.since < (asked.until or NOW)
        assert set(asked.by) <= set(GROUPS)


@pytest.mark.parametrize("until", ["9999-12-31", "9999-12-31T12:00", "9999-12-31T23:00Z"])
def test_the_end_of_time_is_a_time_everywhere(until: str) -> None:
    for tz in ("UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"):
        asked = read_asked({"until": until, "tz": tz}, now=NOW)
        assert asked.until is not None
        assert asked.until.astimezone(asked.zone).year == 9999
        assert asked.until + timedelta(days=1)
