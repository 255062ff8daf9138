"""moe-gateway serve."""

from __future__ import annotations

import socket
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gateway import __version__
from gateway.commands.shared import DEFAULT_CONFIG, Config, State, read_config, state_folder, warn
from gateway.console import fail, out, shown_progress
from gateway.settings import (
    MIB,
    Settings,
    admin_key_from_environment,
    check_exposure,
    is_loopback,
    keys_from_environment,
)
from router.experts import ExpertsFile


def serve(
    config: Config = DEFAULT_CONFIG,
    host: Annotated[str, typer.Option(envvar="MOE_GATEWAY_HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="MOE_GATEWAY_PORT", min=0, max=65535)] = 8080,
    state: State = None,
    protect_metrics: Annotated[
        bool, typer.Option(envvar="MOE_GATEWAY_PROTECT_METRICS", help="/metrics asks for a key too.")
    ] = False,
    max_body_mib: Annotated[int, typer.Option(envvar="MOE_GATEWAY_MAX_BODY_MIB", min=1, help="Largest body.")] = 32,
) -> None:
    """Start the gateway.

    Example: moe-gateway serve --config experts.yaml --port 8080
    """
    from gateway.serving import run

    keys = keys_from_environment()
    settings = Settings(
        config=config,
        host=host,
        port=port,
        keys=keys,
        admin_key=admin_key_from_environment(),
        protect_metrics=protect_metrics,
        max_body_bytes=max_body_mib * MIB,
        state=state_folder(config, state),
    )
    check_exposure(settings)
    file = read_config(config)
    warn(file)
    with bound_socket(host, port) as listener, shown_progress() as progress:
        run(settings, file, listener, progress, _banner)


def bound_socket(host: str, port: int) -> socket.socket:
    """Bound, not yet listening; taken before anything slow, so that a port in use is told at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except socket.gaierror:
        fail(f"{host} is not an address of this machine")
    except PermissionError:
        fail(f"port {port} may not be used by this user; choose one from 1024 on with --port")
    except OSError as error:
        fail(f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port, or stop what uses it")
    return listener


def _banner(settings: Settings, file: ExpertsFile, seconds: float) -> None:
    """One screen: where it listens, who answers, what to try."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{settings.port}"
    out.print(
        f"\n[b]moe-gateway {__version__}[/b] answers at [b]{address}/v1[/b] (ready in {seconds:.1f} s)\n",
        highlight=False,
    )
    table = Table("expert", "domains", "model", "served by", box=None, pad_edge=False)
    for name, expert in file.experts.items():
        domains = ", ".join(f"{d} {q:g}" for d, q in expert.domains.items())
        served = "embedded [yellow]stand-in[/yellow]" if expert.stand_in else f"vLLM × {len(expert.upstream.vllm)}"
        table.add_row(name, domains, escape(expert.model), served)
    out.print(table, highlight=False)
    if any(expert.stand_in for expert in file.experts.values()):
        out.print(
            "\n[yellow]Stand-ins are one small embedded model: fit to try the gateway, not to judge its answers by.\n"
            f"Real specialists are ready to uncomment in {escape(str(settings.config))}.[/yellow]", highlight=False,
        )  # fmt: skip
    key = "" if not settings.keys else " -H 'Authorization: Bearer YOUR_KEY'"
    request = '{"model": "auto", "stream": true, "messages": [{"role": "user", "content": "Why do leaves turn red?"}]}'
    out.print("\nTry it:", highlight=False)
    out.print(
        f"  curl -N {address}/v1/chat/completions{key} -d '{request}'\n", highlight=False, soft_wrap=True, markup=False
    )
    if not is_loopback(settings.host):
        out.print("It is reachable from other machines: put TLS in front of it.", highlight=False)
