"""The architectures that people deploy: each launched by experts.yaml answers through the gateway as transformers does, and nothing
of any lives on, however the gateway went."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import httpx
import psutil
import pytest

from tests.vllm.launching import (
    ONE_PROCESS_LESS,
    PATIENCE,
    Launched,
    all_gone,
    ask,
    engine_titles,
    launch,
    launched,
    wait_for,
)
from tests.vllm.tiny_models import NEW_TOKENS, TinyModel

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def test_the_models_are_what_their_names_say(models: Mapping[str, TinyModel]) -> None:
    said = {name: [answer.tokens for answer in model.answers] for name, model in models.items()}
    assert said["llama-pro"] == said["llama"]  # its added block does nothing yet
    assert all(
        a != b for a, b in zip(said["mistral-window"], said["mistral"], strict=True)
    )  # prompts outgrow the window
    layers = json.loads((models["llama-pro"].folder / "config.json").read_text("utf-8"))["num_hidden_layers"]
    assert layers == 3


@pytest.fixture(scope="class")
def batch(
    request: pytest.FixtureRequest, models: Mapping[str, TinyModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launched]:
    names = request.cls.NAMES
    experts = [
        f"  {name}:\n    model: tiny-{name}\n    domains: [general]\n"
        f"    upstream: {{launch: {launch(models[name].folder, env=ONE_PROCESS_LESS if i else None)}}}\n"
        for i, name in enumerate(names)
    ]
    with launched("version: 1\nexperts:\n" + "".join(experts), tmp_path_factory.mktemp(names[0])) as gateway:
        yield gateway


# Without it vLLM loads another library of kernels, whose mixture of experts differs by more than rounding: a random Mixtral's
# tokens come out otherwise with it, in float32 too, and a Llama's are the same. Tried on one processor with both libraries.
AVX512 = "avx512f" in Path("/proc/cpuinfo").read_text("utf-8")


class Batch:
    """Some that are launched together, as many as fit into a small machine's memory; all but the first have a process less."""

    NAMES: tuple[str, ...] = ()

    def test_each_answers_as_transformers_does(
        self, batch: Launched, name: str, models: Mapping[str, TinyModel]
    ) -> None:
        model = models[name]
        for expected in model.answers:
            answer = ask(batch, name, expected)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-moe-expert"] == name
            told = answer.json()
            assert told["prompt_token_ids"] == expected.prompt_tokens
            if name != "mixtral" or AVX512:
                assert told["choices"][0]["token_ids"] == expected.tokens
            assert told["usage"]["completion_tokens"] == NEW_TOKENS
        log = (batch.state / "logs" / f"{name}-0.log").read_text("utf-8", "replace")
        assert f"Resolved architecture: {model.architecture}" in log


class TestLlamas(Batch):
    NAMES = ("llama", "llama-pro", "mistral", "mistral-window")

    def test_an_owner_that_is_killed_leaves_nothing_and_another_takes_its_place(self, batch: Launched) -> None:
        owner = batch.owner()
        processes = [owner, *owner.children(recursive=True)]
        assert titled(processes, "EngineCore") == len(self.NAMES)
        assert all(titled(processes, title) for title in engine_titles())
        owner.kill()
        all_gone(processes)
        crew = wait_for("another owner", batch.crew, batch.log)
        assert crew.keys() == {f"{name}-0" for name in self.NAMES}
        assert batch.owner().pid != owner.pid
        assert httpx.get(f"{batch.url}/health", timeout=PATIENCE).status_code == 200


class TestOthers(Batch):
    NAMES = ("mixtral", "falcon-7b", "falcon-40b", "olmo", "olmo2")

    def test_a_gateway_that_is_killed_leaves_nothing(self, batch: Launched) -> None:
        processes = batch.processes()
        assert titled(processes, "EngineCore") == len(self.NAMES)
        batch.command.process.send_signal(signal.SIGKILL)
        batch.command.process.wait()
        all_gone(processes)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", metafunc.cls.NAMES)


def titled(processes: Iterable[psutil.Process], word: str) -> int:
    """How many have the word in their title."""
    return sum(word in " ".join(process.cmdline()) for process in processes)
