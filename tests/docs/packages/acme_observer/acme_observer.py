"""acme_observer: a line of CSV for every request that was answered, for who writes the bills."""

import csv
import os

from gateway.receipt import Receipt


class Bill:
    """Appends to the file that ACME_BILL names. It is made, told and closed in one thread of its own."""

    def __init__(self) -> None:
        self._file = open(os.environ["ACME_BILL"], "a", newline="", encoding="utf-8")  # noqa: SIM115 - closed in close
        self._lines = csv.writer(self._file)

    def observe(self, receipt: Receipt) -> None:
        if receipt.usage is None or receipt.decision is None:
            return
        tokens = receipt.usage.input + receipt.usage.cached_input, receipt.usage.output
        self._lines.writerow(
            [receipt.finished_at.isoformat(), receipt.caller, receipt.decision.expert, *tokens, receipt.cost.usd]
        )
        self._file.flush()

    def close(self) -> None:
        self._file.close()
