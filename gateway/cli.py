"""The moe-gateway command. Exit status: 0 fine, 1 the thing asked about is wrong, 2 called wrongly."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway import __version__
from gateway.settings import MIB, Settings, check_exposure, is_loopback, keys_from_environment
from router.errors import ConfigError, RouterError
from router.experts import ExpertsFile, load_experts

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Send every prompt to the best open specialist model.",
)  # fmt: skip
out, err = Console(), Console(stderr=True)

Config = Annotated[Path, typer.Option("--config", "-c", envvar="MOE_GATEWAY_CONFIG", help="The experts file.")]
State = Annotated[
    Path | None, typer.Option("--state", envvar="MOE_GATEWAY_STATE", help="Folder for logs and retrained routers.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DEFAULT_CONFIG = Path("experts.yaml")


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


def fail(message: str) -> NoReturn:
    """Say what is wrong and leave with exit status 1."""
    for line in message.splitlines():
        err.print(f"error: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        out.print(f"moe-gateway {__version__}", highlight=False)
        raise typer.Exit


@app.command()
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
        protect_metrics=protect_metrics,
        max_body_bytes=max_body_mib * MIB,
        state=_state(config, state),
    )
    check_exposure(settings)
    file = read_config(config)
    _warn(file)
    with bound_socket(host, port) as listener, shown_progress() as progress:
        run(settings, file, listener, progress, _banner)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The experts file.")] = DEFAULT_CONFIG, as_json: Json = False
) -> None:
    """Say everything that is wrong with an experts file, each with its line.

    Example: moe-gateway check experts.yaml
    """
    from gateway.usage import cost_warnings

    try:
        experts = read_config(file)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "problems": [{n: getattr(p, n) for n in p.__slots__} for p in error.problems]})
        raise typer.Exit(1) from None
    if as_json:
        print_json(
            {
                "ok": True,
                "experts": list(experts.experts),
                "domains": experts.domain_names,
                "hash": experts.digest,
                "warnings": list(cost_warnings(experts)),
            }
        )
        return
    _warn(experts)
    stand_ins = sum(expert.stand_in for expert in experts.experts.values())
    note = f", of which {stand_ins} are stand-ins" if stand_ins else ""
    out.print(
        f"{file}: fine: {len(experts.experts)} experts{note}, domains {', '.join(experts.domain_names)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command()
def route(
    text: Annotated[str | None, typer.Argument(help="A prompt.")] = None,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    model: Annotated[str, typer.Option(help="A virtual model: auto, auto:cheap or auto:best.")] = "auto",
    input: Annotated[
        str | None, typer.Option(help="A file of JSON lines with id and prompt or messages; - is stdin.")
    ] = None,
    output: Annotated[str, typer.Option(help="Where the decisions go; - is stdout.")] = "-",
    as_json: Json = False,
) -> None:
    """Say which expert would answer a prompt, or every prompt of a file, and why.

    Example: moe-gateway route "Why is the sky blue?"
    Example: moe-gateway route --input prompts.jsonl --output decisions.jsonl
    """
    from gateway.batch import route_lines
    from router.conversation import routed_text
    from router.decision import Query
    from router.policy import POLICIES

    if (text is None) == (input is None):
        raise typer.BadParameter("give a prompt, or --input FILE")
    if model not in POLICIES:
        raise typer.BadParameter(f"one of {', '.join(POLICIES)}", param_hint="--model")
    router = provisioned(config, state)
    if text is not None:
        decision = router.decide(Query(routed_text([text]), model))
        print_json(decision.described()) if as_json else _print_decision(decision.described())
        return
    with opened_batch(input or "-", output) as (lines, answers):
        failed = route_lines(router, lines, answers, model)
    if failed:
        err.print(f"{failed} lines could not be routed; each has its error in the output", style="yellow")


@app.command()
def train(
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    output: Annotated[Path | None, typer.Option(help="Artifact folder; the state folder's where not given.")] = None,
    as_json: Json = False,
) -> None:
    """Train the router on the corpus and on the examples of an experts file.

    Example: moe-gateway train --config experts.yaml
    """
    from router.dataset import training_rows
    from router.training import train as train_router

    file = read_config(config)
    folder = output or _state(config, state) / "router"
    with shown_progress() as progress:
        manifest = train_router(training_rows(file), file.router.encoder, folder, progress, file.router.head)
    if as_json:
        print_json(manifest.model_dump())
        return
    scores = ", ".join(f"{name} {value:g}" for name, value in manifest.held_out.items())
    out.print(
        f"trained on {manifest.rows} prompts into {folder}; held out: {scores}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="JSON lines, gzipped or not, with domain and prompt or messages.")],
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Measure the router on labelled prompts.

    Example: moe-gateway evaluate prompts.jsonl.gz
    """
    from router.dataset import read_rows
    from router.evaluation import evaluate as evaluate_rows

    if not file.is_file():
        fail(f"there is no {file}")
    rows = list(read_rows(file))
    if not rows:
        fail(f"{file} has no rows")
    router = provisioned(config, state)
    with shown_progress() as progress:
        report = evaluate_rows(router.artifact, rows, lambda done, total: progress("evaluating", done, total))
    parts = {"all": report, **report.parts}
    if as_json:
        print_json({name: part.summary() | {"per_domain": part.per_domain} for name, part in parts.items()})
        return
    table = Table("part", "rows", "accuracy", "macro-F1", "ECE", "flips")
    for name, part in parts.items():
        flips = "" if part.flips is None else f"{part.flips:.3f}"
        table.add_row(name, str(part.rows), f"{part.accuracy:.3f}", f"{part.macro_f1:.3f}", f"{part.ece:.3f}", flips)
    out.print(table)


def read_config(path: Path) -> ExpertsFile:
    """Raises ConfigError; leaves with status 1 where there is no such file."""
    try:
        return load_experts(path)
    except (FileNotFoundError, IsADirectoryError):
        fail(f"there is no {path}; name yours with --config FILE (the project's own experts.yaml is one to start from)")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path} cannot be read: {error}")


def provisioned(config: Path, state: Path | None) -> Any:
    """The router that fits the experts file, trained now where there is none."""
    from router.provision import load_or_train

    with shown_progress() as progress:
        return load_or_train(read_config(config), _state(config, state), progress)


def _state(config: Path, state: Path | None) -> Path:
    return state or config.resolve().parent / ".moe-gateway"


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


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A function (step, done, total) that draws a bar on a terminal, and elsewhere writes a line for each step."""
    from rich.progress import Progress

    bars: dict[str, Any] = {}
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:

        def show(step: str, done: int, total: int) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=total)
                if not err.is_terminal:
                    err.print(f"{step} …", highlight=False)
            progress.update(bars[step], completed=done)

        yield show


@contextmanager
def opened_batch(source: str, target: str) -> Iterator[tuple[BinaryIO, TextIO]]:
    """The files to read from and to write to, or the standard streams where they are -."""
    both = "-" not in (source, target) and Path(source).exists() and Path(target).exists()
    if both and Path(source).samefile(target):
        fail(f"{source} is input and output; what is not read yet would be lost")
    with ExitStack() as stack:
        try:
            lines = sys.stdin.buffer if source == "-" else stack.enter_context(Path(source).open("rb"))
            answers = sys.stdout if target == "-" else stack.enter_context(Path(target).open("w", encoding="utf-8"))
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}")
        yield lines, answers


def _warn(file: ExpertsFile) -> None:
    from gateway.usage import cost_warnings

    for warning in cost_warnings(file):
        err.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _print_decision(decision: dict[str, Any]) -> None:
    out.print(
        f"[b]{decision['expert']}[/b]  reason {decision['reason']}, {decision['latency_ms']:.1f} ms", highlight=False
    )
    table = Table("domain", "probability", box=None)
    for domain, probability in sorted(decision["probabilities"].items(), key=lambda item: -item[1]):
        table.add_row(domain, f"{probability:.3f} {'█' * round(20 * probability)}")
    out.print(table)


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


if __name__ == "__main__":
    main()
