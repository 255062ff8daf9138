"""A comparison from its prompts to its answers: what is known is not asked again, the rest is, each target in its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from gateway.comparing.answers import Answer, Sampling, key_of
from gateway.comparing.asking import Asker
from gateway.comparing.grading import grade
from gateway.comparing.journal import Journal
from gateway.comparing.prompts import Prompt
from gateway.comparing.summary import Answers

Progress = Callable[[str, int, int], None]


class Run:
    """`at_once` is how many prompts a target is asked at a time; targets are asked beside one another. `tests` as in grading,
    each for `test_seconds` at most."""

    def __init__(self, journal: Journal, at_once: int, tests: bool, test_seconds: float) -> None:
        self._journal, self._at_once = journal, at_once
        self._tests, self._test_seconds = tests, test_seconds

    async def answers(
        self, asker: Asker, prompts: Sequence[Prompt], targets: Sequence[str], sampling: Sampling, progress: Progress
    ) -> Answers:
        """Every answer, graded. Raises OSError where the journal cannot be written."""
        found: dict[tuple[str, str], Answer] = {}
        async with asyncio.TaskGroup() as group:
            for target in targets:
                of_target = iter(prompts)
                done = [0]
                for _ in range(min(self._at_once, len(prompts))):
                    group.create_task(
                        self._work(asker, of_target, target, sampling, found, done, len(prompts), progress)
                    )
        return found

    async def _work(
        self,
        asker: Asker,
        prompts: Iterator[Prompt],
        target: str,
        sampling: Sampling,
        found: dict[tuple[str, str], Answer],
        done: list[int],
        total: int,
        progress: Progress,
    ) -> None:
        for prompt in prompts:
            answer = self._journal.known.get(key_of(prompt, target, sampling))
            if answer is None:
                answer = await asker.ask(prompt, target)
                await asyncio.to_thread(self._journal.add, answer)
            await asyncio.to_thread(grade, prompt, answer, self._tests, self._test_seconds)
            answer.prompt = prompt.id
            found[prompt.id, target] = answer
            done[0] += 1
            progress(target, done[0], total)
