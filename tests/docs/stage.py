"""Where pages are played: folders as a reader has them, a gateway that they share, model servers for the addresses that they name.

Run one page: python -m tests.docs.stage docs/guide/start.md
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.docs import declared
from tests.docs.blocks import script
from tests.docs.modelserver import model_server
from tests.docs.pages import ROOT, name_of, pages

HERE = Path(__file__).parent
INSTEAD = HERE / "instead"
GIVEN = HERE / "given"  # files that a reader has: prompts
SERVES = re.compile(r"(?m)^\s*(?:\w+=\S+ )*(?:moe-gateway|make) serve\b")
PATIENCE = 240.0  # seconds for a page, on whatever machine; what trains behind a gateway has what others leave
MODEL = re.compile(r"\bmodel: ([\w./-]+)|\bname: ([\w-]+)|--served-model-name (\S+)")
# Programs that may do here what they do everywhere. What is in none of the two places is not found, and the page fails.
REAL = "awk bash cat chmod cp date dirname env grep head jq kill ls mkdir mv openssl rm sed sleep sort tail tee touch tr wc"


@dataclass(frozen=True)
class Played:
    """What came of a page; `said` is what its commands printed, both ways."""

    status: int
    said: str
    seconds: float


@dataclass
class Stage:
    """`play` has a page's blocks run. Close by leaving `stage()`."""

    folder: Path
    stack: ExitStack
    gateway: str
    state: Path
    servers: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def models(self, address: str) -> str:
        """Host and port of the model server that is there for an address of the pages."""
        with self.lock:
            if address not in self.servers:
                self.servers[address] = self.stack.enter_context(model_server(named_models()))
            return self.servers[address]

    def play(self, page: Path) -> Played:
        """Runs the page in a folder of its own."""
        name, text = name_of(page), script(page.read_text("utf-8"))
        folder = self.laid(name.replace("/", "-").removesuffix(".md"))
        own = SERVES.search(text) is not None
        gateway = f"127.0.0.1:{held_port(self.stack)}" if own else self.gateway
        text = declared.substituted(declared.with_statuses(name, text), gateway, self.models)
        return self.run(text, folder, gateway)

    def laid(self, name: str) -> Path:
        """A folder as the repository's root is, as far as pages look."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        shutil.copytree(ROOT / "deploy", folder / "deploy")
        shutil.copytree(GIVEN, folder, dirs_exist_ok=True)
        for file in ("experts.yaml", "routes.test.yaml"):
            text = (ROOT / file).read_text("utf-8")
            (folder / file).write_text(declared.substituted(text, self.gateway, self.models))
        return folder

    def run(self, text: str, folder: Path, gateway: str, leaving: bool = False) -> Played:
        """Runs a script; what it started ends with it, or with the stage where it is `leaving` that running."""
        began, file = time.monotonic(), folder / ".page.sh"
        file.write_text(text)
        with (folder / ".said").open("w+") as said:
            process = subprocess.Popen(
                ["bash", str(file)], cwd=folder, env=self.environment(folder, gateway), stdin=subprocess.DEVNULL,
                stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
            self.stack.callback(end_group, process)
            try:
                status = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                status = 124
            if not leaving:
                end_group(process)
            said.seek(0)
            return Played(status, said.read(), time.monotonic() - began)

    def environment(self, folder: Path, gateway: str) -> dict[str, str]:
        known = {name: value.replace("127.0.0.1:8080", gateway) for name, value in declared.VARIABLES.items()}
        return known | {
            "PATH": f"{INSTEAD}:{self.folder / 'bin'}",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "120",
            "BASH_ENV": str(HERE / "prelude.sh"),
            "MOE_GATEWAY_URL": f"http://{gateway}",
            **({"MOE_GATEWAY_STATE": str(self.state)} if gateway == self.gateway else {}),
            "PYTHONPATH": f"{folder / 'site'}:{ROOT}",  # what the page's pip put there
            "PAGES_COMPILED": " ".join(declared.COMPILED),
            "PAGES_FOLDER": str(folder),
            "PAGES_GATEWAY": gateway,
            "PAGES_PYTHON": sys.executable,
            "PAGES_ROOT": str(ROOT),
            "PAGES_SOCKET": str(self.folder / "socket"),
            "PAGES_TOOLS": str(INSTEAD),
        }


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a script's shell and what it left running; what forking.py runs for it goes with its client."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@cache
def named_models() -> tuple[str, ...]:
    """Whatever a page or a file of ours calls a model, for servers that have them all."""
    files = [*pages(), *ROOT.glob("*.yaml"), *ROOT.glob("deploy/*.yaml")]
    found = {name for file in files for names in MODEL.findall(file.read_text("utf-8")) for name in names if name}
    return tuple(sorted(found))


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A stage in an empty folder, with the gateway that pages share, which has answered one request."""
    programs = folder / "bin"
    programs.mkdir()
    for program in REAL.split():
        if path := shutil.which(program, path="/usr/bin:/bin"):
            (programs / program).symlink_to(path)
    with ExitStack() as stack:
        stack.enter_context(forking(folder / "socket"))
        made = Stage(folder, stack, f"127.0.0.1:{held_port(stack)}", folder / "state")
        began = made.run("moe-gateway serve", made.laid("shared"), made.gateway, leaving=True)
        assert began.status == 0, began.said
        yield made


@contextmanager
def forking(path: Path) -> Iterator[None]:
    """forking.py, ready for calls."""
    process = subprocess.Popen([sys.executable, "-m", "tests.docs.forking", str(path)], cwd=ROOT)
    try:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.02)
        yield
    finally:
        process.terminate()  # it waits for what it runs
        process.wait()


def held_port(stack: ExitStack) -> int:
    """One that the system gives to nobody until a page's gateway names it, which may be long after: it is held, though nobody
    listens there, until the stack ends. With SO_REUSEADDR, which the gateway sets as well, that one can have it all the same."""
    held = stack.enter_context(socket.socket())
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return int(held.getsockname()[1])


def main(names: list[str]) -> int:
    """Plays the pages named, and says what they said."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as made:
        for name in names:
            played = made.play((Path.cwd() / name).resolve())
            print(f"{played.said}\n== {name}: status {played.status} after {played.seconds:.1f} s")
            failed += played.status != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
