"""moe-gateway config: the configurations that were served, and how to go back to one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.gatewayurl import ADMIN_KEY, gateway_address
from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, state_folder
from gateway.console import err, fail, out, print_json
from gateway.history import Entry, History
from router.sources import Sources

NOW = "now"

config = typer.Typer(no_args_is_help=True, help="The configurations that were served: list, compare, go back to one.")
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@config.command()
def history(config: Config = DEFAULT_CONFIG, state: State = None, as_json: Json = False) -> None:
    """List the configurations that were served, newest first; the last 50 are kept.

    Example: moe-gateway config history
    """
    kept = _history(config, state)
    entries, now = kept.entries(config), _as_it_is(config)
    if as_json:
        print_json({"object": "list", "data": [_described(entry, now) for entry in entries]})
    elif not entries:
        _say(_nothing(kept))
    else:
        _print_entries(entries, now)
    for path in kept.damaged():
        err.print(f"warning: {path} is damaged and left out", style="yellow", markup=False, soft_wrap=True)


@config.command()
def diff(
    old: Annotated[str, typer.Argument(help="A number or digest of the history.", show_default="the newest")] = "",
    new: Annotated[str, typer.Argument(help="Another one, or now: the files as they are.")] = NOW,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Say how two configurations differ, line by line and in words; secrets are masked.

    Example: moe-gateway config diff 3 now
    """
    from gateway.commands.configdiff import difference, show

    kept = _history(config, state)
    one, other = _chosen(kept, old, config), _chosen(kept, new, config)
    found = difference(one[1], other[1])
    if as_json:
        print_json({"from": one[0], "to": other[0], **found.described()})
    else:
        show(found, one[0], other[0])


@config.command()
def rollback(
    to: Annotated[str, typer.Argument(help="A number or digest.", show_default="the newest that differs")] = "",
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="Also where it cannot be read here.")] = False,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Put an earlier configuration back in place, all its files or none. What stands there now goes into the history first.

    Example: moe-gateway config rollback 3
    """
    from gateway.commands.configdiff import difference, show
    from gateway.replacing import replace_files

    kept = _history(config, state)
    entry = _entry(kept, to, config) if to else _newest_that_differs(kept, config)
    wanted = Sources(config, entry.texts)
    now, changed = _as_it_is(config, *entry.texts), _differing(entry, config)
    if not changed:
        if as_json:
            print_json({"number": entry.number, "written": []})
        else:
            _say(f"{config} is as number {entry.number} has it: nothing to do")
        return
    if not force:
        _check(wanted, entry)
    found = difference(now, Sources(config, now.texts | changed))
    if not as_json:
        show(found, "now", _title(entry))
    _confirm(f"Put number {entry.number} back in place?", yes)
    if _as_it_is(config, *entry.texts).texts != now.texts:
        fail(f"{config} was changed meanwhile; nothing was written, the same command tries again")
    kept.record(now, now.digest, why="kept")
    replace_files({wanted.place(name): text for name, text in changed.items()})
    kept.record(wanted, entry.digest, why="rollback")
    if as_json:
        print_json({"number": entry.number, "digest": entry.digest, "written": list(changed), **found.described()})
        return
    _say(
        f"\n{', '.join(changed)}: back to {_title(entry)}. A gateway that watches the file takes it up; config status tells."
    )


@config.command()
def status(
    url: Annotated[
        str,
        typer.Option(
            "--url", envvar="MOE_GATEWAY_URL", help=f"The running gateway; its admin key is read from {ADMIN_KEY}."
        ),
    ] = "http://127.0.0.1:8080",
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Say what a running gateway serves, and what is wrong with the newest file where it does not serve that.

    Exit status 1 where it was refused.

    Example: moe-gateway config status --url http://127.0.0.1:8080
    """
    from gateway.commands.configstatus import ask, show

    told = ask(gateway_address(url, ADMIN_KEY))
    digest = _as_it_is(config).digest if config.exists() else None
    if as_json:
        print_json({**told, "here": digest})
    else:
        show(told, config, digest)
    if told["status"] == "refused":
        raise typer.Exit(1)


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def _history(config: Path, state: Path | None) -> History:
    return History(state_folder(config, state) / "history")


def _nothing(kept: History) -> str:
    return f"there is no history in {kept.folder}: a gateway writes one while it serves; name its state folder with --state"


def _as_it_is(config: Path, *names: str) -> Sources:
    """What stands in the files, also where it is none that can be served; `names` are read where they are there."""
    from router.errors import ConfigError
    from router.sources import read_sources

    try:
        texts = dict(read_sources(config).texts)
    except ConfigError:
        texts = {}
    for name in (config.name, *names):
        path = config.parent / name
        if name not in texts and path.is_file():
            texts[name] = path.read_bytes().decode("utf-8", "surrogateescape")
    return Sources(config, texts or {config.name: ""})


def _chosen(kept: History, which: str, config: Path) -> tuple[str, Sources]:
    """What it is, and its texts."""
    if which == NOW:
        return "the files now", _as_it_is(config)
    entry = _entry(kept, which, config)
    return _title(entry), Sources(config, entry.texts)


def _entry(kept: History, which: str, config: Path) -> Entry:
    """By number or by the beginning of a digest; the newest for an empty text. Leaves with status 1 where there is none."""
    entries = kept.entries(config)
    if not entries:
        fail(_nothing(kept))
    if not which:
        return next((entry for entry in entries if entry.why != "kept"), entries[0])
    found = [entry for entry in entries if str(entry.number) == which] or [
        entry for entry in entries if len(which) >= 4 and entry.digest.startswith(which)
    ]
    if not found:
        fail(f"the history has no {which!r}; it has the numbers {', '.join(str(entry.number) for entry in entries)}")
    return found[0]


def _newest_that_differs(kept: History, config: Path) -> Entry:
    entries = kept.entries(config)
    served = (entry for entry in entries if entry.why != "kept")
    found = next((entry for entry in served if _differing(entry, config)), None)
    if found is None:
        fail(_nothing(kept) if not entries else "nothing else was served before: there is nothing to go back to")
    return found


def _differing(entry: Entry, config: Path) -> dict[str, str]:
    """The texts of the entry that are not what stands in the files now."""
    now = _as_it_is(config, *entry.texts).texts
    return {name: text for name, text in entry.texts.items() if now.get(name) != text}


def _check(wanted: Sources, entry: Entry) -> None:
    from router.errors import ConfigError
    from router.experts import parse_sources

    try:
        parse_sources(wanted)
    except ConfigError as error:
        fail(f"number {entry.number} cannot be read here; --force puts it back all the same\n{error}")


def _confirm(question: str, yes: bool) -> None:
    """Leaves with status 1 where the answer is no, 2 where nobody can be asked."""
    if yes:
        return
    if not (out.is_terminal and err.is_terminal):
        fail("nobody can be asked here; say --yes", 2)
    if not typer.confirm(question):
        fail("nothing was written")


def _title(entry: Entry) -> str:
    return f"number {entry.number}, {entry.why} {_when(entry.at)}, {entry.digest}"


def _when(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"


def _described(entry: Entry, now: Sources) -> dict[str, Any]:
    when = datetime.fromtimestamp(entry.at).astimezone().isoformat(timespec="seconds")
    return {
        "number": entry.number,
        "at": when,
        "why": entry.why,
        "digest": entry.digest,
        "files": list(entry.texts),
        "is_now": entry.texts == now.texts,
    }


def _print_entries(entries: list[Entry], now: Sources) -> None:
    from rich.table import Table
    from rich.text import Text

    from gateway.commands.configdiff import difference

    table = Table("number", "since", "why", "digest", "lines", "", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for entry, before in zip(entries, [*entries[1:], None], strict=True):
        lines = Text("")
        if before is not None:
            files = difference(before.sources, entry.sources).files
            lines.append(f"+{sum(f.added for f in files)} ", "green")
            lines.append(f"-{sum(f.removed for f in files)}", "red")
        here = Text("◂ the files now", "bold") if entry.texts == now.texts else Text("")
        table.add_row(str(entry.number), _when(entry.at), Text(entry.why), Text(entry.digest), lines, here)
    out.print(table, highlight=False)
