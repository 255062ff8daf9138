"""The launched workers beside `serve`: started with it where it is asked to, else looked for."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from gateway.commands.crewscreen import CrewScreen, say
from gateway.settings import Settings
from gateway.workers.launching import find_vllm, plans
from gateway.workers.protocol import Crew, WorkerState
from gateway.workers.reaching import reached
from router.experts import ExpertsFile

States = Mapping[str, Sequence[WorkerState]]


@contextmanager
def launched(settings: Settings, file: ExpertsFile, wanted: bool) -> Iterator[States]:
    """The states of the workers by expert. Where they are `wanted` they are started, run as long as this lasts, and are waited
    for until each expert has one, or has none on its way. Raises SettingsError."""
    planned, state = plans(file), settings.state.resolve()
    if not wanted:
        crew = _told(settings) if planned else None
        if planned and crew is None:
            say(
                f"warning: nobody runs the {len(planned)} workers that {settings.config} launches, so their experts are down: "
                f"run moe-gateway workers up --config {settings.config}, or serve --with-workers", "yellow"
            )  # fmt: skip
        yield _by_expert(crew)
        return
    from gateway.workers.child import OwnerChild

    if planned:
        find_vllm(settings.config)
    else:
        say(f"warning: --with-workers, and {settings.config} launches none", "yellow")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the default would end the gateway while it waits
    log = ("--log-level", settings.log_level, "--log-format", settings.log_format)
    with OwnerChild(settings.config, state, log) as child:
        screen = CrewScreen(planned, state)
        with screen.live():
            crew = child.wait(screen.show) if planned else None
        signal.signal(signal.SIGHUP, before)
        _warn(crew)
        yield _by_expert(crew)


def _told(settings: Settings) -> Crew | None:
    with reached(settings.state.resolve()) as owner:
        try:
            told = owner.hear() if owner is not None else None
        except TimeoutError:
            return None
        return told if isinstance(told, Crew) else None


def _warn(crew: Crew | None) -> None:
    failed = [facts.name for facts in crew.workers if facts.failing] if crew is not None else []
    if failed:
        say(
            f"warning: {', '.join(failed)} did not become ready, and {'are' if len(failed) > 1 else 'is'} tried again with growing "
            "pauses; fallbacks answer meanwhile (moe-gateway workers status)", "yellow",
        )  # fmt: skip


def _by_expert(crew: Crew | None) -> States:
    states: dict[str, list[WorkerState]] = {}
    for facts in crew.workers if crew is not None else ():
        states.setdefault(facts.expert, []).append(facts.state)
    return states
