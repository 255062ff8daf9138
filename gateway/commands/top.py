"""moe-gateway top."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from select import select
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console, Group

from gateway.commands.shared import Json
from gateway.console import fail, out, print_json
from gateway.watching.scrape import Scrape, ScrapeError, fetch
from gateway.watching.window import Window

KEY = "MOE_GATEWAY_KEY"
WINDOW_SECONDS = 30.0
LOOK_SECONDS = 0.1  # between looks at the keyboard
CALLED_WRONGLY = 2
WIDE = 132  # columns of a table that goes into a file
AROUND_ROWS = 10  # lines of the screen that are no expert's
KEYS = {"\x1b[A": "up", "\x1b[B": "down", "k": "up", "j": "down"}


def top(
    url: Annotated[
        str, typer.Option("--url", envvar="MOE_GATEWAY_URL", help=f"The running gateway; its key is read from {KEY}.")
    ] = "http://127.0.0.1:8080",
    interval: Annotated[float, typer.Option("--interval", "-n", min=0.2, max=60, help="Seconds between looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look for one interval, print, and leave.")] = False,
    as_json: Json = False,
) -> None:
    """Watch a running gateway: per expert its health, load, latency, tokens and cost, over the last 30 seconds.

    On a terminal it goes on until q; s sorts, p pauses, the arrow keys move where there are many experts. Elsewhere, and with
    --once, it looks for one interval.

    Example: moe-gateway top --url http://127.0.0.1:8080
    """
    if urlsplit(url).scheme not in ("http", "https"):
        fail("--url takes an address such as http://127.0.0.1:8080", CALLED_WRONGLY)
    key = os.environ.get(KEY)
    if once or as_json or not (out.is_terminal and sys.stdin.isatty()):
        _once(url, key, interval, as_json)
    else:
        _live(url, key, interval)


def _once(url: str, key: str | None, interval: float, as_json: bool) -> None:
    from gateway.watching.board import board
    from gateway.watching.screen import screen

    window = Window(interval)
    try:
        window.add(fetch(url, key, interval + 5))
        time.sleep(interval)
        window.add(fetch(url, key, interval + 5))
    except ScrapeError as error:
        fail(f"the gateway at {url}: {error}")
    told = board(window)
    if as_json:
        print_json(told.described())
    else:
        console = out if out.is_terminal else Console(width=WIDE)
        console.print(screen(told, console.width), highlight=False)


def _live(url: str, key: str | None, interval: float) -> None:
    from rich.live import Live

    view = View(url, key, interval)
    try:
        view.first()
    except ScrapeError as error:
        fail(f"the gateway at {url}: {error}")
    with _keyboard(), Live(console=out, screen=True, auto_refresh=False) as live, view:
        try:
            while view.open:
                if view.look() or _pressed(view, LOOK_SECONDS):
                    live.update(view.shown(), refresh=True)
        except KeyboardInterrupt:
            pass


class View:
    """What is on the screen: what was scraped, and how it is looked at. It scrapes beside, so that keys are heard meanwhile."""

    def __init__(self, url: str, key: str | None, interval: float) -> None:
        self._url, self._key, self._interval = url, key, interval
        self.window = Window(WINDOW_SECONDS)
        self._beside = ThreadPoolExecutor(1)
        self._asked: Future[Scrape] | None = None
        self._next = time.monotonic()
        self._why = ""
        self._gone_since = 0.0
        self._sort, self._first = "file", 0
        self.open, self._paused = True, False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._beside.shutdown(wait=False, cancel_futures=True)

    def first(self) -> None:
        """Raises ScrapeError: an address that is wrong from the start is told at once."""
        self.window.add(fetch(self._url, self._key, max(2.0, self._interval)))

    def look(self) -> bool:
        """Take in what was scraped, and scrape when it is time. Whether there is something new to show."""
        if self._asked is not None and self._asked.done():
            self.note(self._asked)
            self._asked = None
            return not self._paused
        if self._asked is None and not self._paused and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._interval
            self._asked = self._beside.submit(fetch, self._url, self._key, max(2.0, self._interval))
        return False

    def press(self, key: str) -> None:
        from gateway.watching.screen import SORTS

        names = list(SORTS)
        match KEYS.get(key, key):
            case "q" | "\x03" | "\x04":
                self.open = False
            case "s":
                self._sort = names[(names.index(self._sort) + 1) % len(names)]
            case "p" | " ":
                self._paused = not self._paused
            case "up":
                self._first = max(0, self._first - 1)
            case "down":
                self._first = min(self._first + 1, max(0, self._experts - 1))

    def shown(self) -> Group:
        from rich.text import Text

        from gateway.watching.board import board
        from gateway.watching.screen import screen

        room = max(1, out.height - AROUND_ROWS)
        told = board(self.window)
        self._first = min(self._first, max(0, len(told.rows) - room))
        foot = [Text("q quit  s sort  p pause" + ("  ↑↓ move" if len(told.rows) > room else ""), "dim")]
        if self._paused:
            foot.insert(0, Text("paused", "bold yellow"))
        if self._why:
            ago = time.monotonic() - self._gone_since
            foot.insert(0, Text(f"{self._why}; these are figures of {ago:.0f} s ago", "bold red"))
        return Group(screen(told, out.width, self._sort, self._first, room), Text(""), *foot)

    @property
    def _experts(self) -> int:
        scrape = self.window.newest
        return len(scrape.values("moe_requests_in_flight", "expert")) if scrape else 0

    def note(self, asked: Future[Scrape]) -> None:
        """Take in what was scraped, or that nothing was."""
        try:
            scrape = asked.result()
        except ScrapeError as error:
            if not self._why:
                self._gone_since = self.window.newest.at if self.window.newest else time.monotonic()
            self._why = str(error)
            return
        if self._why:  # it may be another one: what lies between is no rate
            self.window = Window(WINDOW_SECONDS)
        self._why = ""
        self.window.add(scrape)


def _pressed(view: View, seconds: float) -> bool:
    """Wait so long for a key; whether one came."""
    ready, _, _ = select([sys.stdin], [], [], seconds)
    if not ready:
        return False
    pressed = os.read(sys.stdin.fileno(), 64).decode("utf-8", "ignore")
    for key in [pressed] if pressed.startswith("\x1b") else pressed or "\x04":
        view.press(key)
    return True


@contextmanager
def _keyboard() -> Iterator[None]:
    """Keys as they are pressed, unseen; as it was afterwards."""
    import termios
    import tty

    fileno = sys.stdin.fileno()
    before = termios.tcgetattr(fileno)
    try:
        tty.setcbreak(fileno)
        yield
    finally:
        termios.tcsetattr(fileno, termios.TCSADRAIN, before)
