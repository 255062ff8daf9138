"""Trains and tries a router, as a program: the child of `gateway.reloading.trial`, which steps back for all others.

It leaves when its standard input ends: that happens when its parent is gone, however it went.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.jsonlines import line, read
from gateway.reloading.trial import Refusal, Step, Task, Told, Verdict
from router.artifact import Artifact, load_artifact, publish_artifact
from router.dataset import Row, training_rows
from router.errors import ConfigError, RouterError
from router.experts import ExpertsFile, parse_sources
from router.holds import Hold, remove_unheld
from router.routetests import RouteTest, RouteTests, parse_route_tests, run_route_tests
from router.routetests.file import FILE_NAME
from router.routing import Router
from router.training.provision import ROUTER, fitting
from router.training.regression import regression

NICE = 10  # on a machine that has nothing left, a tenth of what a process that serves gets
SCRATCH = "trial-"  # folders below that of the state, gone when the trial is over

Tell = Callable[[Told], None]


def main() -> None:
    _yield_to_others()
    # Standard output is for what the parent is told; whatever else is printed goes where the log goes.
    told = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    task = read(sys.stdin.buffer.readline(), Task)
    threading.Thread(target=_leave_with_parent, daemon=True).start()

    def tell(message: Told) -> None:
        os.write(told, line(message))

    tell(outcome(task, tell))


def _yield_to_others() -> None:
    """Whoever has requests goes first; and where memory runs out, this process is the one to go."""
    with suppress(OSError):
        os.nice(NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if os.getsid(0) == os.getpid():  # Linux may weigh sessions against each other, each as a whole; this one is its own
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(NICE))


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def outcome(task: Task, tell: Tell) -> Verdict | Refusal:
    """As `judged`, and whatever goes wrong as a refusal."""
    try:
        return judged(task, tell)
    except ConfigError as error:
        return Refusal("invalid_config", str(error).splitlines())
    except RouterError as error:
        return Refusal("training_failed", str(error).splitlines())
    except MemoryError:
        return Refusal("training_failed", ["there is not enough memory to train"])
    except OSError as error:
        return Refusal("training_failed", [f"the router cannot be written: {(error.strerror or str(error)).lower()}"])
    except Exception as error:  # noqa: BLE001 - whatever went wrong, what runs goes on, and is told so
        traceback.print_exc()
        return Refusal("training_failed", [f"training failed: {type(error).__name__}; the gateway's log has more"])


def judged(task: Task, tell: Tell) -> Verdict | Refusal:
    """Train where that is wanted, try what came of it, publish it where nothing speaks against it. Raises RouterError, OSError."""
    file = parse_sources(task.sources)
    old = load_artifact(task.folder)
    if not task.retrain and old.name == task.artifact:
        return _tried(task, file, old, [], "")
    rows = training_rows(file)
    folder = fitting(file, rows, task.state)
    if folder is not None:
        return _tried(task, file, load_artifact(folder), *_compared(file, old, load_artifact(folder), rows))
    with _scratch(task.state) as scratch:
        made = scratch / ROUTER  # whoever writes a router locks its folder, and this one is held
        _train(file, rows, task.state, made, tell)
        new = load_artifact(made)
        verdict = _tried(task, file, new, *_compared(file, old, new, rows))
        if isinstance(verdict, Verdict):
            publish_artifact(made, task.state / ROUTER)
            verdict.folder = task.state / ROUTER
        return verdict


def _train(file: ExpertsFile, rows: Sequence[Row], state: Path, into: Path, tell: Tell) -> None:
    """What was trained here before lends its encoders and vectors: that is what makes adding a domain a matter of seconds."""
    from router.training.train import Recipe, train

    with suppress(OSError, shutil.Error):
        shutil.copytree(state / ROUTER, into, copy_function=_linked, dirs_exist_ok=True)
    train(rows, Recipe.of(file.router), into, lambda step, done, total: tell(Step(step, done, total)))


def _linked(source: str, target: str) -> None:
    """Files are replaced and never written into, so that two names of one are as good as two files."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def _scratch(state: Path) -> Iterator[Path]:
    """A new folder in `state`, gone afterwards. Those that killed processes left are removed first."""
    state.mkdir(parents=True, exist_ok=True)
    for left in state.glob(f"{SCRATCH}*"):
        remove_unheld(left)
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=state))
    hold = Hold([folder])
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        del hold


def _compared(file: ExpertsFile, old: Artifact, new: Artifact, rows: Sequence[Row]) -> tuple[list[str], str]:
    """What speaks against `new` as old domains are concerned, and the figures."""
    found = regression(old, new, rows)
    if found is None:
        return [], ""
    if found.lost <= file.router.retrain_margin:
        return [], str(found)
    return [f"{found}; router.retrain_margin allows a loss of {file.router.retrain_margin:g}"], str(found)


def _tried(task: Task, file: ExpertsFile, artifact: Artifact, worse: list[str], figures: str) -> Verdict | Refusal:
    failed = _failed_tests(task.tests, Router(file, artifact)) if task.tests is not None else []
    if (worse or failed) and not task.force:
        return Refusal("worse_routing" if worse else "tests_failed", [*worse, *failed])
    return Verdict(artifact.name, artifact.folder, [*worse, *failed], figures)


def _failed_tests(text: str, router: Router) -> list[str]:
    """A line each. Raises ConfigError where the tests cannot be read."""
    tests = parse_route_tests(text)
    failed = [result for result in run_route_tests(tests, router) if not result.passed]
    return [f"{FILE_NAME}:{result.test.line}: {_name(tests, result.test)}{result.why}" for result in failed]


def _name(tests: RouteTests, test: RouteTest) -> str:
    """Empty where it has none but its prompt, which is nothing for a log."""
    return f"{test.name!r} " if tests.file.node(("tests", test.index, "name")) is not None else ""


if __name__ == "__main__":
    main()
