"""The moe-gateway command. Exit status: 0 fine, 1 the thing asked about is wrong, 2 called wrongly."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway import __version__
from gateway.commands import (
    catalog,
    check,
    compare,
    config,
    corpus,
    dashboards,
    diff_routing,
    domains,
    evaluate,
    experts,
    explain,
    init,
    route,
    schema,
    serve,
    test,
    top,
    train,
    usage,
    workers,
)
from gateway.console import fail, out
from router.errors import RouterError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Send every prompt to the best open specialist model.",
)  # fmt: skip
for command in (
    init.init,
    serve.serve,
    check.check,
    schema.schema,
    route.route,
    test.test,
    explain.explain,
    train.train,
    evaluate.evaluate,
    corpus.corpus,
    compare.compare,
    diff_routing.diff_routing,
    top.top,
    usage.usage,
):
    app.command()(command)
app.add_typer(catalog.catalog, name="catalog")
app.add_typer(config.config, name="config")
app.add_typer(experts.experts, name="experts")
app.add_typer(dashboards.dashboards, name="dashboards")
app.add_typer(domains.domains, name="domains")
app.add_typer(workers.app, name="workers")


def main() -> None:
    """The entry point: errors that a user can mend become lines on standard error and exit status 1."""
    from gateway.errors import SettingsError
    from gateway.workers.supervisor import WorkerError

    try:
        app()
    except (RouterError, SettingsError, WorkerError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'output'}: {error.strerror}")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        out.print(f"moe-gateway {__version__}", highlight=False)
        raise typer.Exit


if __name__ == "__main__":
    main()
