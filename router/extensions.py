"""Registry: the built-in things of one kind by name, and those that other installed packages add as entry points."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from router.errors import ExtensionError

T = TypeVar("T")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def added(group: str, prefix: str = "") -> dict[str, list[EntryPoint]]:
    """What installed packages add under the entry point group `group`, by name after `prefix`. Nothing is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=group), key=lambda e: (e.name, e.value)):
        if _NAME.fullmatch(entry.name):
            found.setdefault(f"{prefix}{entry.name}", []).append(entry)
    return found


class Registry(Mapping[str, T], Generic[T]):
    """What is built in, then what packages add under the entry point group `group`, their names after `prefix`.

    Packages are looked for when a name that is not built in is first asked for, and each is imported when it is first
    used; both happen once, and a package that cannot be used fails the same way every time. A built-in name cannot be
    taken by a package. Safe from any thread.
    """

    def __init__(
        self,
        group: str,
        built_in: Mapping[str, T],
        prefix: str = "",
        adapt: Callable[[str, T], T] = lambda name, it: it,
    ) -> None:
        """`adapt` takes the name of what a package adds and the thing itself, and returns what is served in its place."""
        self._group, self._built_in, self._prefix, self._adapt = group, dict(built_in), prefix, adapt
        self._found: dict[str, list[EntryPoint]] | None = None
        self._loaded: dict[str, T | ExtensionError] = {}
        self._lock = threading.RLock()

    def __getitem__(self, name: str) -> T:
        """Raises KeyError for a name that nobody adds, ExtensionError where what a package adds cannot be used."""
        if name in self._built_in:
            return self._built_in[name]
        with self._lock:
            if name not in self._loaded:
                try:
                    self._loaded[name] = self._load(name, self._entries()[name])
                except ExtensionError as error:
                    self._loaded[name] = error
            loaded = self._loaded[name]
        if isinstance(loaded, ExtensionError):
            raise ExtensionError(str(loaded))
        return loaded

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._entries()

    def __iter__(self) -> Iterator[str]:
        return iter((*self._built_in, *self._entries()))

    def __len__(self) -> int:
        return len(self._built_in) + len(self._entries())

    def package(self, name: str) -> str | None:
        """The package that adds `name` and its version, such as `acme 1.2`; None where it is built in or nobody adds it."""
        entries = [] if name in self._built_in else self._entries().get(name, [])
        return next((f"{e.dist.name} {e.dist.version}" if e.dist else e.value for e in entries), None)

    @contextmanager
    def lending(self, name: str, thing: T) -> Iterator[None]:
        """`name` is built in while the block runs: for things that an application makes itself."""
        before = self._built_in
        self._built_in = {**before, name: thing}
        try:
            yield
        finally:
            self._built_in = before

    def _entries(self) -> dict[str, list[EntryPoint]]:
        with self._lock:
            if self._found is None:
                found = added(self._group, self._prefix)
                self._found = {name: entries for name, entries in found.items() if name not in self._built_in}
            return self._found

    def _load(self, name: str, entries: list[EntryPoint]) -> T:
        sources = sorted({f"{e.dist.name if e.dist else '?'} ({e.value})" for e in entries})
        if len(sources) > 1:
            raise ExtensionError(f"{name} is added by {' and by '.join(sources)}; uninstall one of them")
        try:
            loaded = entries[0].load()
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything when it is imported
            why = f"{type(error).__name__}: {error}"
            raise ExtensionError(f"{name} of the package {sources[0]} cannot be loaded: {why}") from error
        if not callable(loaded):
            raise ExtensionError(f"{name} of the package {sources[0]} is not callable")
        return self._adapt(name, loaded)
