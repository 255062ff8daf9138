"""The table of `moe-gateway check --live`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from gateway.console import out, printable
from gateway.inspection import Inspected


def show(inspected: Sequence[Inspected]) -> None:
    """A row for each replica, and how many are not as the file says."""
    table = Table("replica", "latency", "model", "context", "is as the file says", box=None, pad_edge=False)
    for replica in inspected:
        said = [Text(printable(text), "red") for text in replica.problems]
        said += [Text(printable(text), "dim") for text in replica.notes]
        if not replica.problems:
            said.insert(0, _verdict(replica))
        table.add_row(
            Text(replica.replica),
            "–" if replica.milliseconds is None else f"{replica.milliseconds:.0f} ms",
            Text(printable(replica.model), "red" if replica.served is False and replica.problems else ""),
            _context(replica),
            Text("\n").join(said),
        )
    out.print(table, highlight=False)
    wrong = sum(bool(replica.problems) for replica in inspected)
    summary = f"{wrong} of {len(inspected)} replicas are not as the file says" if wrong else "all are as the file says"
    out.print(summary, style="red" if wrong else "green", highlight=False)


def _verdict(replica: Inspected) -> Text:
    if replica.served is None:
        return Text("as far as can be told", "dim")
    return Text("yes", "green") if replica.served else Text("not yet", "yellow")


def _context(replica: Inspected) -> str:
    """Tokens: the file's of the server's."""
    known = [str(tokens) for tokens in (replica.context_in_file, replica.context) if tokens is not None]
    return " of ".join(known) or "–"
