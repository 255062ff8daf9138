"""What a log says of a start that failed: the ends of logs of vLLM 0.32, shortened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.workers.diagnosis import MOST_CHARACTERS, diagnose

FLAG = """usage: vllm [-h] [-v]
            {chat,complete,serve,launch,bench,collect-env}
vllm: error: unrecognized arguments: --nope 3
keeper: the server ended by itself, with status 2
"""
VALUE = """usage: vllm serve [model_tag] [options]
vllm serve: error: argument --max-model-len: invalid human_readable_int_or_auto value: 'x'
"""
HUB = """    raise OSError(
OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.
Check your internet connection or see how to run the library in offline mode at 'https://huggingface.co/docs'.
"""
FOLDER = """huggingface_hub.errors.HFValidationError: Repo id must use alphanumeric chars, '-', '_' or '.': './nothere'.

The above exception was the direct cause of the following exception:

OSError: Repo id must use alphanumeric chars, '-', '_' or '.': './nothere'.
"""
CACHE = """(EngineCore pid=31) ERROR 11-29 16:36:02 [core.py:1502] Traceback (most recent call last):
(EngineCore pid=31) ERROR 11-29 16:36:02 [core.py:1502] ValueError: To serve at least one request with the model's max seq len \
(8192), (0.18 GiB KV cache is needed, which is larger than the available KV cache memory (0.01 GiB). Based on the available
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked shared_memory objects to clean up at shutdown
"""
CUDA = """(Worker pid=9) ERROR 11-29 10:00:00 [multiproc_executor.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""
PORT = "    sock.bind(addr)\nOSError: [Errno 98] Address already in use\n"
RANK = "ValueError: LoRA rank 64 is greater than max_lora_rank 16.\n"
GATED = "huggingface_hub.errors.GatedRepoError: 401 Client Error.\nOSError: You are trying to access a gated repo.\n"
LACK = "ModuleNotFoundError: No module named 'torch'\n"
DEAD = (
    "(APIServer pid=22) ERROR 11-29 16:24:15 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered\n"
    "keeper: the server ended by itself, with status 0\n"
)
KILLED = "INFO serving\nkeeper: the server ended by itself, with status -9\n"
OTHER = (
    "INFO all is well\nRuntimeError: Unsupported CPU attention configuration: head_dim=16\nkeeper: the server ended\n"
)


@pytest.mark.parametrize(
    ("log", "cause", "hint"),
    [
        (FLAG, "vllm: error: unrecognized arguments: --nope 3", "does not know --nope 3;"),
        (VALUE, "vllm serve: error: argument --max-model-len: invalid", "see args"),
        (HUB, "OSError: We couldn't connect to 'https://huggingface.co'", "the model was not found"),
        (FOLDER, "OSError: Repo id must use alphanumeric", "the model was not found"),
        (CACHE, "ValueError: To serve at least one request", "not enough memory"),
        (CUDA, "torch.OutOfMemoryError: CUDA out of memory", "not enough memory"),
        (PORT, "OSError: [Errno 98] Address already in use", "took the port"),
        (RANK, "ValueError: LoRA rank 64", "args: [--max-lora-rank, 64]"),
        (GATED, "OSError: You are trying", "HF_TOKEN"),
        (LACK, "ModuleNotFoundError: No module named 'torch'", "is vLLM whole"),
        (DEAD, "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered", ""),
        (KILLED, "", "for want of memory"),
        (OTHER, "RuntimeError: Unsupported CPU attention configuration: head_dim=16", ""),
    ],
)
def test_the_cause_is_told_and_what_to_do(log: str, cause: str, hint: str) -> None:
    found = diagnose("INFO loading\nWARNING an unimportant warning\n" + log)
    assert found.cause.startswith(cause)
    assert hint in found.hint
    assert bool(hint) == bool(found.hint)
    assert found.line.startswith(cause)
    assert found.line.endswith(found.hint)


def test_a_log_that_says_nothing_has_no_cause() -> None:
    assert diagnose("").line == diagnose("INFO loading\nINFO serving\n").line == ""


@given(st.text())
def test_nothing_that_a_log_says_is_too_much(text: str) -> None:
    found = diagnose(f"ValueError: {text}\nvllm: error: unrecognized arguments: {text}{{0}}{{}}%s {'x' * 999}\n")
    assert len(found.line) <= 3 * MOST_CHARACTERS
