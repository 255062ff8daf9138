"""moe-gateway serve."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gateway import __version__
from gateway.commands.crewscreen import styled
from gateway.commands.launchedcrew import launched
from gateway.commands.shared import DEFAULT_CONFIG, Config, State, read_config, state_folder, warn
from gateway.console import err, fail, out, printable, shown_progress
from gateway.errors import SettingsError
from gateway.settings import (
    KIB,
    MIB,
    LogFormat,
    LogLevel,
    Settings,
    Watch,
    admin_key_from_environment,
    check_exposure,
    is_loopback,
    keys_from_environment,
)
from gateway.workers.protocol import WorkerState
from router.errors import ExtensionError
from router.experts import Expert, ExpertsFile

CALLED_WRONGLY = 2
LEDGER = "ledger.db"


def _option(name: str, help_text: str, **bounds: Any) -> Any:
    """An option and its environment variable."""
    variable = "MOE_GATEWAY_" + name.removeprefix("--").replace("-", "_").upper()
    return typer.Option(name, envvar=variable, help=help_text, **bounds)


def serve(
    config: Config = DEFAULT_CONFIG,
    host: Annotated[str, _option("--host", "Where to listen; :: is every address of IPv4 and IPv6.")] = "127.0.0.1",
    port: Annotated[int, _option("--port", "0 lets the system choose one.", min=0, max=65535)] = 8080,
    uds: Annotated[Path | None, _option("--uds", "Listen on this Unix socket, and on no port.")] = None,
    uds_mode: Annotated[str, _option("--uds-mode", "Who may use the Unix socket, as chmod writes it.")] = "600",
    tls_cert: Annotated[Path | None, _option("--tls-cert", "Certificate and its chain, PEM; needs --tls-key.")] = None,
    tls_key: Annotated[Path | None, _option("--tls-key", "Private key, PEM, with no password.")] = None,
    processes: Annotated[int, _option("--processes", "How many processes serve.", min=1, max=256)] = 1,
    state: State = None,
    with_workers: Annotated[
        bool, _option("--with-workers", "Start the vLLM workers that experts.yaml launches, and stop them at the end.")
    ] = False,
    protect_metrics: Annotated[bool, _option("--protect-metrics", "/metrics asks for a key too.")] = False,
    max_body_mib: Annotated[int, _option("--max-body-mib", "Largest body.", min=1)] = 32,
    max_header_kib: Annotated[int, _option("--max-header-kib", "Largest request line and headers.", min=1)] = 64,
    max_connections: Annotated[
        int | None, _option("--max-connections", "Open at once, each process; as many as it may open files for.", min=1)
    ] = None,
    backlog: Annotated[int, _option("--backlog", "Connections that wait to be taken.", min=1)] = 2048,
    keep_alive: Annotated[
        float, _option("--keep-alive", "Seconds a connection may rest between requests.", min=0)
    ] = 75,
    drain_delay: Annotated[
        float, _option("--drain-delay", "Seconds to go on listening after SIGTERM, while /ready says 503.", min=0)
    ] = 0,
    drain_seconds: Annotated[
        float, _option("--drain-seconds", "Seconds that requests in flight have to end after that.", min=0)
    ] = 30,
    log_level: Annotated[LogLevel, _option("--log-level", "The least that is logged.")] = LogLevel.INFO,
    log_format: Annotated[
        LogFormat, _option("--log-format", "auto is console on a terminal, else json.")
    ] = LogFormat.AUTO,
    ledger: Annotated[
        str | None,
        _option(
            "--ledger", "Database of what was used: sqlite:///FILE, postgresql://…, none. [default: a file in --state]"
        ),
    ] = None,
    ledger_keep: Annotated[
        str, _option("--ledger-keep", "How long its rows are kept, such as 90d, or forever; totals of days always are.")
    ] = "90d",
    ledger_prompts: Annotated[bool, _option("--ledger-prompts", "Write prompts into the ledger, too.")] = False,
    watch: Annotated[
        Watch, _option("--watch", "See when --config is saved: auto, poll where the system does not tell, or off.")
    ] = Watch.AUTO,
    retrain_seconds: Annotated[
        float, _option("--retrain-seconds", "How long a router may take to be trained while another serves.", min=1)
    ] = 1800,
    observer: Annotated[
        list[str] | None, _option("--observer", "Tell this observer of an installed package of finished requests.")
    ] = None,
) -> None:
    """Start the gateway.

    SIGTERM lets what is in flight end; a second one does not wait for it.

    Example: moe-gateway serve --config experts.yaml --port 8080
    """
    settings = Settings(
        config=config,
        host=host.strip("[]"),
        port=port,
        uds=uds,
        uds_mode=_mode(uds_mode),
        tls_cert=tls_cert,
        tls_key=tls_key,
        processes=processes,
        keys=keys_from_environment(),
        admin_key=admin_key_from_environment(),
        protect_metrics=protect_metrics,
        max_body_bytes=max_body_mib * MIB,
        max_header_bytes=max_header_kib * KIB,
        max_connections=max_connections,
        backlog=backlog,
        keep_alive_seconds=keep_alive,
        drain_delay=drain_delay,
        drain_seconds=drain_seconds,
        log_level=log_level,
        log_format=log_format,
        state=state_folder(config, state),
        ledger=_ledger(ledger, state_folder(config, state)),
        ledger_keep=_keep(ledger_keep),
        ledger_prompts=ledger_prompts,
        watch=watch,
        retrain_seconds=retrain_seconds,
        observers=tuple(dict.fromkeys(observer or ())),
    )
    check_exposure(settings)
    _check_tls(settings)
    _check_observers(settings)
    file = read_config(config)
    warn(file)
    if settings.ledger and ledger_prompts:
        err.print("warning: prompts are written into the ledger (--ledger-prompts)", style="yellow", highlight=False)
    _serve(settings, file, with_workers)


def _serve(settings: Settings, file: ExpertsFile, with_workers: bool) -> None:
    # A variable that is left of another program would send this one's metrics into that one's folder.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    from gateway.sockets import bound
    from gateway.workers import embedded

    if any(expert.stand_in for expert in file.experts.values()) and (lacking := embedded.missing()):
        raise SettingsError(lacking)
    with bound(settings) as sockets, launched(settings, file, with_workers) as states:
        banner = partial(_banner, states=states)
        if settings.processes > 1:
            from gateway.processes import supervise

            supervise(settings, file, sockets, banner)
            return
        from gateway.serving import run

        with shown_progress() as progress:
            run(settings, file, sockets, progress, banner)


def _served_by(name: str, expert: Expert, states: Mapping[str, Sequence[WorkerState]]) -> str:
    upstream = expert.upstream
    if expert.stand_in:
        return "embedded [yellow]stand-in[/yellow]"
    if upstream.litellm is not None:
        return f"litellm: {escape(upstream.litellm.partition('/')[0])}"
    if upstream.custom is not None:
        return f"{upstream.custom} of a package"
    if upstream.worker is not None:
        return f"an adapter at {upstream.worker}"
    if upstream.launch is not None:
        known = Counter(states.get(name, ()))
        told = ", ".join(f"{count} {styled(state)}" for state, count in known.items())
        return f"launched vLLM × {upstream.launch.replicas}: {told or '[red]down[/red], nobody runs them'}"
    return f"vLLM × {len(upstream.vllm)}"


def _mode(written: str) -> int:
    try:
        mode = int(written, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        fail(f"--uds-mode: {written!r} is no mode such as 660", CALLED_WRONGLY)
    return mode


def _ledger(url: str | None, state: Path) -> str | None:
    """Raises NewerLedgerError, MissingExtraError."""
    from gateway.ledger import urls
    from gateway.ledger.errors import LedgerUrlError

    if url == "none":
        return None
    url = url or urls.in_file((state / LEDGER).resolve())
    try:
        urls.check(url)
    except LedgerUrlError as error:
        fail(str(error), CALLED_WRONGLY)
    return url


def _keep(written: str) -> float | None:
    if written == "forever":
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(h|d|w)", written, re.ASCII)
    if match is None:
        fail(f"--ledger-keep: {written!r} is neither forever nor a time such as 90d, 12h or 52w", CALLED_WRONGLY)
    return int(match[1]) * {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}[match[2]]


def _check_tls(settings: Settings) -> None:
    if settings.tls_cert is None and settings.tls_key is None:
        return
    from gateway.tls import tls_context

    try:
        tls_context(settings.tls_cert, settings.tls_key)
    except SettingsError as error:
        fail(str(error), CALLED_WRONGLY)


def _check_observers(settings: Settings) -> None:
    if not settings.observers:
        return
    from gateway.observing import check_observers

    try:
        check_observers(settings.observers)
    except ExtensionError as error:
        fail(f"--observer: {error}", CALLED_WRONGLY)


def _banner(
    settings: Settings,
    file: ExpertsFile,
    seconds: float,
    warnings: Sequence[str],
    states: Mapping[str, Sequence[WorkerState]],
) -> None:
    """One screen: where it listens, who answers, what to try. `warnings` say how servers are not as the file says; `states` has
    those of the workers of experts that launch some."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{'https' if settings.tls_cert else 'http'}://{host}:{settings.port}"
    place = f"{address}/v1" if settings.uds is None else f"{settings.uds}"
    by = f", {settings.processes} processes" if settings.processes > 1 else ""
    out.print(
        f"\n[b]moe-gateway {__version__}[/b] answers at [b]{escape(place)}[/b] (ready in {seconds:.1f} s{by})\n",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table("expert", "domains", "model", "served by", box=None, pad_edge=False)
    for name, expert in file.experts.items():
        domains = ", ".join(f"{d} {q:g}" for d, q in expert.domains.items())
        table.add_row(name, domains, escape(printable(expert.upstream_model)), _served_by(name, expert, states))
    out.print(table, highlight=False)
    for warning in warnings:
        out.print(f"[red]not as the file says:[/red] {escape(printable(warning))}", highlight=False, soft_wrap=True)
    if any(expert.stand_in for expert in file.experts.values()):
        out.print(
            "\n[yellow]Stand-ins are one small embedded model: fit to try the gateway, not to judge its answers by.\n"
            f"Real specialists are ready to uncomment in {escape(str(settings.config))}.[/yellow]", highlight=False,
        )  # fmt: skip
    socket = f"--unix-socket {settings.uds} " if settings.uds is not None else ""
    base = address if settings.uds is None else f"{address.partition('://')[0]}://localhost"
    key = "" if not settings.keys else " -H 'Authorization: Bearer YOUR_KEY'"
    request = '{"model": "auto", "stream": true, "messages": [{"role": "user", "content": "Why do leaves turn red?"}]}'
    out.print("\nTry it:", highlight=False)
    out.print(
        f"  curl -N {socket}{base}/v1/chat/completions{key} -d '{request}'\n",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip
    if settings.uds is None and settings.tls_cert is None and not is_loopback(settings.host):
        out.print(
            "It is reachable from other machines: put TLS in front of it, or give it --tls-cert.", highlight=False
        )
