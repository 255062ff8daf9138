"""Every official client against the running gateway: each check of python/ and node/ is one test here."""

from __future__ import annotations

import pytest

from tests.clients.conftest import Results
from tests.clients.groups import GROUPS

pytestmark = pytest.mark.timeout(300)
CASES = [(group.name, check) for group in GROUPS.values() for check in group.checks()]


@pytest.mark.parametrize(("group", "check"), CASES)
def test_the_client_does_what_it_does_with_the_makers_own_service(results: Results, group: str, check: str) -> None:
    found = results(group)
    assert check in found, f"not reported; reported were {sorted(found)}"
    if found[check].error:
        pytest.fail(found[check].error, pytrace=False)
