"""Upstream: where an expert answers, as experts.yaml says it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from router.values import HttpUrl, Name, Seconds, Secret, Setting, Word, about

# What the gateway says itself when it launches a worker: an argument that said otherwise would hide the worker from it.
OWN_FLAGS = frozenset({"host", "port", "uds", "api-key", "model", "served-model-name", "lora-modules"})
UPSTREAM_GROUP = "moe_gateway.upstreams"  # what packages add under it may be the `custom` of an upstream
PACKAGED_NAME = r"^[a-z0-9][a-z0-9_-]{0,31}$"  # of an entry point: router/extensions.py passes over others
_ADAPTER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag(cls, value: Any) -> Any:
        """No key is a yes or no, and Pydantic would take true for 1."""
        if isinstance(value, bool) or (
            isinstance(value, list | dict)
            and any(isinstance(inner, bool) for inner in (value.values() if isinstance(value, dict) else value))
        ):
            raise ValueError("true and false mean nothing here; put a text of that name in quotes")
        return value


class Replica(Part):
    """One server. `weight` is its share of the load; `max_in_flight` bounds its requests in place of the expert's figure."""

    url: Annotated[HttpUrl, about("Its address, as OpenAI's clients are given it.", "http://10.0.0.5:8000/v1")]
    weight: Annotated[
        float, Field(gt=0, allow_inf_nan=False), about("Its share of the load, against the other replicas.", 2)
    ] = 1.0
    max_in_flight: Annotated[
        Annotated[int, Field(gt=0)] | None,
        about("How many requests it is given at once, in place of the expert's figure.", 128),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class Adapter(Part):
    """A LoRA adapter, by the name that its worker knows it by. With a `path` (on the worker's machine, or a name of the hub)
    a worker that does not have it yet is told to load it."""

    name: Annotated[str, Field(pattern=_ADAPTER_NAME), about("What its worker calls it.", "sql")]
    path: Annotated[
        Name | None,
        about(
            "Where it is: a folder of the worker's machine, or a name of the hub. The gateway has it loaded.",
            "/adapters/sql-v3",
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


def _arguments(value: Any) -> Any:
    """A list of words and numbers, or one line as in a shell."""
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise ValueError(f"cannot be read as a command line: {str(error).lower()}") from None
    if isinstance(value, list):
        return tuple(
            str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in value
        )
    return value


class Launch(Part):
    """Workers that the gateway starts itself, each a vLLM server on loopback.

    `model` is where the weights are (a folder, or a name of the hub) where that is not the expert's `model`. `args` go to
    `vllm serve` as they are. `gpus` are dealt out among the `replicas`; with none the workers see what their engine finds.
    `lora_modules` are adapters that the worker has from the start, name to path. `sleep_level` is vLLM's, where `args` have
    --enable-sleep-mode.
    """

    engine: Annotated[Literal["vllm"], about("What is started.", "vllm")] = "vllm"
    model: Annotated[
        Name | None,
        about(
            "Where the weights are, a folder or a name of the hub, where that is not the expert's model.",
            "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        ),
    ] = None
    replicas: Annotated[int, Field(ge=1, le=64), about("How many servers.", 2)] = 1
    args: Annotated[
        tuple[Word, ...],
        BeforeValidator(_arguments),
        about(
            "What vllm serve is given beside what the gateway says itself: one line, or a list.",
            "--max-model-len 32768 --enable-sleep-mode",
        ),
    ] = ()
    gpus: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        about("The GPUs that are dealt out among the replicas; what the engine finds, where it is not said.", [0, 1]),
    ] = ()
    env: Annotated[
        dict[str, Setting],
        about(
            "What its environment has beside the gateway's own: texts, ${NAME}, or file: and the path of a file.",
            {"HF_TOKEN": "${HF_TOKEN}"},
        ),
    ] = Field(default={}, repr=False)
    lora_modules: Annotated[
        dict[Annotated[str, Field(pattern=_ADAPTER_NAME)], Word],
        about("Adapters that it has from the start, name to path.", {"sql": "/adapters/sql-v3"}),
    ] = {}
    sleep_level: Annotated[
        Literal[1, 2], about("vLLM's, where args have --enable-sleep-mode: 2 drops the weights.", 1)
    ] = 1
    ready_within: Annotated[Seconds, about("How long it may take until it answers.", "30m")] = 1800.0

    @model_validator(mode="after")
    def _leave_ours(self) -> Launch:
        for word in self.args:
            flag = word.partition("=")[0].removeprefix("--").replace("_", "-")
            if word.startswith("--") and flag in OWN_FLAGS:
                raise ValueError(f"--{flag} is set by the gateway; see {_INSTEAD.get(flag, 'launch')} in its place")
        if any(not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in self.env):
            raise ValueError("a name in env is letters, digits and '_'")
        if len(set(self.gpus)) != len(self.gpus):
            raise ValueError("a GPU stands twice in gpus")
        if self.gpus and len(self.gpus) % self.replicas and self.replicas % len(self.gpus):
            raise ValueError(f"{len(self.gpus)} gpus cannot be dealt out evenly among {self.replicas} replicas")
        return self

    def gpus_of(self, replica: int) -> tuple[int, ...]:
        """Those of one replica, counted from 0: an equal part, or one that it shares where there are more replicas than GPUs."""
        if not self.gpus:
            return ()
        each = len(self.gpus) // self.replicas
        if each == 0:
            return (self.gpus[replica % len(self.gpus)],)
        return self.gpus[replica * each : (replica + 1) * each]

    def has(self, flag: str) -> bool:
        """Whether `args` have the flag, written in either way."""
        written = {word.partition("=")[0].replace("_", "-") for word in self.args if word.startswith("--")}
        return f"--{flag}" in written

    def value(self, flag: str) -> str | None:
        """What `args` give the flag, the last where it stands twice; None where they do not."""
        found = None
        for i, word in enumerate(self.args):
            name, said, value = word.partition("=")
            if name.startswith("--") and name.replace("_", "-") == f"--{flag}":
                found = value if said else (self.args[i + 1] if i + 1 < len(self.args) else None)
        return found


_INSTEAD = {"model": "launch.model", "served-model-name": "the expert's model", "lora-modules": "launch.lora_modules"}


class Upstream(Part):
    """Where an expert answers: replicas of a vLLM (or any OpenAI-compatible) server, workers that the gateway launches, the
    `worker` that another expert launches, a provider that litellm knows (`provider/model`, with `base_url` where it is not
    the provider's own), the embedded engine, or the upstream `custom` that an installed package adds, with the `base_url` that it
    wants. With `adapter` the answers are those of a LoRA adapter there."""

    vllm: Annotated[
        tuple[Replica, ...],
        about(
            "Addresses of vLLM, or of any server that speaks OpenAI's API: one, or a list; each may have a weight.",
            ["http://10.0.0.5:8000/v1", {"url": "http://10.0.0.6:8000/v1", "weight": 2}],
            "http://10.0.0.5:8000/v1",
        ),
    ] = ()
    launch: Annotated[
        Launch | None, about("Workers that the gateway starts itself.", {"gpus": [0], "args": "--max-model-len 32768"})
    ] = None
    worker: Annotated[str | None, about("The expert whose workers answer; goes with adapter.", "general")] = None
    adapter: Annotated[
        Adapter | None,
        about(
            "The LoRA adapter that answers there: a name, or with a path.",
            "sql",
            {"name": "sql", "path": "/adapters/sql-v3"},
        ),
    ] = None
    embedded: Annotated[
        Literal["smollm2"] | None, about("The small model that the gateway runs itself, to try it with.", "smollm2")
    ] = None
    litellm: Annotated[
        Annotated[str, Field(pattern=r"^[a-z0-9_]+/\S+$")] | None,
        about("A model of a provider that litellm knows: provider/model.", "together_ai/Qwen/Qwen3-Coder-Next-FP8"),
    ] = None
    custom: Annotated[
        Annotated[str, Field(pattern=PACKAGED_NAME)] | None,
        about("The upstream of an installed package, by its name.", "ollama"),
    ] = None
    base_url: Annotated[
        HttpUrl | None,
        about("Where litellm's provider, or the package's upstream, is asked.", "https://llm.example.com/v1"),
    ] = None
    api_key: Annotated[
        Secret | None,
        about(
            "The key that it asks for; never the key itself, but ${NAME} or file: and the path of a file.",
            "${CODER_KEY}",
            "file:/run/secrets/coder",
        ),
    ] = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _one_url(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("vllm"), str):
            return {**value, "vllm": [value["vllm"]]}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Upstream:
        if sum(map(bool, (self.vllm, self.launch, self.worker, self.embedded, self.litellm, self.custom))) != 1:
            known = (
                "vllm: [URL, …], launch: {engine: vllm}, worker: expert, litellm: provider/model, embedded: smollm2 and "
                "custom: the name of a package's upstream"
            )
            raise ValueError(f"give exactly one of {known}")
        if self.base_url is not None and not (self.litellm or self.custom):
            raise ValueError("base_url goes with litellm and custom alone; vllm has its addresses in its list")
        if self.adapter is not None and (self.embedded or self.litellm or self.custom):
            raise ValueError("an adapter goes with vLLM alone: vllm, launch or worker")
        if self.worker is not None and self.adapter is None:
            raise ValueError("worker goes with adapter: without one this is the other expert over again")
        if (self.launch or self.worker) and self.api_key is not None:
            raise ValueError("a worker that is launched gets a key of its own; leave api_key out")
        if self.launch and self.adapter and not (self.adapter.path or self.adapter.name in self.launch.lora_modules):
            raise ValueError(f"the adapter {self.adapter.name} has no path, here or in lora_modules")
        return self

    @property
    def speaks_vllm(self) -> bool:
        """Whether a vLLM, or what counts as one, answers: launched or not."""
        return bool(self.vllm or self.launch or self.worker)
