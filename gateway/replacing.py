"""Replaces files that others may read at the same moment: they see the old one or the new one, whole, wherever that can be."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# What the system says, and what that means for one who edits a configuration.
MEANT = {
    errno.EROFS: "it stands on what may only be read, such as a mounted ConfigMap: change it where it comes from",
    errno.EACCES: "a file is replaced by a new one beside it, so its folder has to be writable",
    errno.EPERM: "a file is replaced by a new one beside it, so its folder has to be writable",
}


def replace_file(path: Path, text: str) -> None:
    """Write `text` in place of what `path` holds, or what it links to; mode and owner stay. On OSError it is as it was."""
    replace_files({path: text})


def replace_files(texts: Mapping[Path, str]) -> None:
    """Write each text in place of what its file holds, or what that links to, or as a new file; modes and owners stay.

    Nothing is replaced before every text is on the disk. Raises OSError that names the file, and then all are as they were.
    """
    ready: dict[Path, Path] = {}
    try:
        for path, text in texts.items():
            with _named(path):
                target = path.resolve()
                ready[path] = written_beside(target, text)
                _made_like(ready[path], target)
        _put_in_place(ready)
    finally:
        for temporary in ready.values():
            temporary.unlink(missing_ok=True)


def written_beside(target: Path, text: str) -> Path:
    """A new file in the folder of `target`, for its owner alone, with the text on the disk. Raises OSError, leaving none."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _made_like(new: Path, old: Path) -> None:
    try:
        there = old.stat()
    except FileNotFoundError:
        new.chmod(0o666 & ~_umask())
        return
    new.chmod(there.st_mode & 0o7777)
    with suppress(PermissionError):  # only root gives files away
        os.chown(new, there.st_uid, there.st_gid)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _put_in_place(ready: Mapping[Path, Path]) -> None:
    """Where one cannot be, those before it are put back."""
    kept: dict[Path, Path | None] = {}
    done: list[Path] = []
    try:
        for path in ready if len(ready) > 1 else ():
            with _named(path):
                kept[path.resolve()] = _kept_beside(path.resolve())
        for path, temporary in ready.items():
            target = path.resolve()
            with _named(path):
                _move(temporary, target)
            done.append(target)
    except OSError:
        for target in done:
            old = kept[target]
            target.unlink() if old is None else _move(old, target)
        raise
    finally:
        for name in filter(None, kept.values()):
            name.unlink(missing_ok=True)


def _move(new: Path, target: Path) -> None:
    """A file that is mounted by itself, as containers have it, cannot be replaced: it alone is written over."""
    try:
        new.replace(target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        old = target.read_bytes()
        try:
            _write_over(target, new.read_bytes())
        except OSError:
            with suppress(OSError):
                _write_over(target, old)
            raise


def _write_over(target: Path, content: bytes) -> None:
    with target.open("r+b") as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _kept_beside(target: Path) -> Path | None:
    """What stands there under another name, to be put back by; None where no file does."""
    if not target.is_file():
        return None
    kept = target.with_name(f".{target.name}.kept-{os.getpid()}")
    try:
        os.link(target, kept)
    except (
        OSError
    ):  # mounted by itself, on what knows no links, or the name is taken: a new file, for its owner alone at first
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(descriptor)
        kept = Path(name)
        shutil.copy2(target, kept)
    return kept


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What the system refuses names `path`, not the file beside it, and says what that means."""
    try:
        yield
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)
        meant = MEANT.get(error.errno or 0)
        why = f"{said}; nothing was written{f': {meant}' if meant else ''}"
        raise OSError(error.errno, why, str(path)) from None
