"""What a row of docs/failures.md says, against what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import httpx
import pytest

from tests.integration.failures.endpoints import Endpoint, check_error, check_event, good_text, said
from tests.integration.failures.plays import Play
from tests.integration.failures.stage import PRICE, Books, Stage
from tests.integration.failures.table import Billed, Gets, Health, Next, Row

SECRETS = ("127.0.0.1", "10.1.2.3", "secret-host-7", "worker.invalid")


@dataclass(frozen=True)
class Case:
    """A row, how it is played, and at which endpoint."""

    row: Row
    play: Play
    endpoint: Endpoint

    @property
    def final(self) -> bool:
        """Whether no other expert is asked."""
        return self.row.next in (Next.NONE, Next.LARGER) or not self.endpoint.moves

    def check_client(self, response: httpx.Response) -> None:
        """That the client gets what the row says where nobody is left."""
        row, play = self.row, self.play
        assert response.status_code == row.status
        assert ("retry-after" in response.headers) == row.retry_after
        if play.retry_after:
            assert response.headers["retry-after"] == play.retry_after
        if row.gets is Gets.OWN:
            self._check_own(response)
        else:
            told = response.text + str(response.headers)
            assert [secret for secret in SECRETS if secret in told] == []
        if row.gets is Gets.ERROR:
            check_error(response.json(), self.endpoint, row.code)
        if row.gets is Gets.ANSWER:
            assert said(response) == play.text
            assert '"error"' not in response.text
        if row.gets is Gets.EVENT:
            self._check_stream(response)

    def _check_own(self, response: httpx.Response) -> None:
        check_error(response.json(), self.endpoint, None)
        if self.play.own is None:
            return
        if self.endpoint.shape == "anthropic":  # another shape than the expert's: its words are the same
            assert json.loads(self.play.own)["error"]["message"] in response.json()["error"]["message"]
        else:
            assert response.content == self.play.own

    def _check_stream(self, response: httpx.Response) -> None:
        *content, last = [event for event in response.text.split("\n\n") if event]
        check_event(last, self.endpoint, self.row.code)
        assert said(response).startswith(self.play.text)
        for event in content:
            assert '"error"' not in event
            lines = [line for line in event.split("\n") if line.startswith("data: ")]
            assert all(json.loads(line.removeprefix("data: ")) for line in lines)  # whole, and not [DONE]

    def check_attempts(self, expert: str, books: Books) -> None:
        assert self.row.outcome is not None
        attempts = self.play.attempts
        assert books.change("moe_upstream_attempts_total", expert=expert, outcome=self.row.outcome) == attempts
        assert books.change("moe_upstream_attempts_total", expert=expert) == attempts

    def check_health(self, stage: Stage, expert: str) -> None:
        if self.row.health is Health.DRAIN:
            assert not stage.available(expert)
        else:
            assert bool(stage.failures(expert)) == (self.row.health is Health.FAULT)
            assert stage.available(expert)

    def check_billed(self, expert: str, books: Books) -> None:
        """That the expert is billed as the row says, and no other at all."""
        told = self.row.billed is Billed.ANSWER or (self.row.billed is Billed.TOLD and self.play.told)
        self._check_bill(expert, books, int(told))

    def check_next(self, response: httpx.Response, books: Books) -> None:
        """That the client got the answer of the next expert, and that it alone is billed."""
        assert response.status_code == 200
        assert said(response) == good_text(self.endpoint)
        assert '"error"' not in response.text
        assert response.headers["x-moe-expert"] == "good"
        assert response.headers["x-moe-reason"] == "fallback"
        assert response.headers["x-moe-attempts"] == str(self.play.attempts + 1)
        assert books.change("moe_upstream_attempts_total", expert="good", outcome="ok") == 1
        labels = {"from_expert": f"{self.play.expert}-then", "to_expert": "good", "reason": str(self.row.outcome)}
        assert books.change("moe_fallbacks_total", **labels) == 1
        self._check_bill("good", books, 1)

    def _check_bill(self, expert: str, books: Books, times: int) -> None:
        tokens = self.endpoint.upstream.tokens
        for kind, count in tokens.items():
            assert books.change("moe_tokens_total", kind=kind) == times * count
            assert books.change("moe_tokens_total", expert=expert, kind=kind) == times * count
        cost = times * sum(count * PRICE[kind] for kind, count in tokens.items()) / 1e6
        assert books.change("moe_cost_usd_total") == pytest.approx(cost, abs=1e-10)
