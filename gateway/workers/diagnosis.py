"""Why a vLLM did not start, as its log says it, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_CHARACTERS = 240  # of a cause
PORT_TAKEN = re.compile(r"address already in use", re.IGNORECASE)
_FLAGS = re.IGNORECASE | re.MULTILINE
# The first that is found counts. {0} is what the pattern's group found.
_KNOWN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, _FLAGS), hint)
    for pattern, hint in (
        (r"unrecognized arguments?: (.+)", "vLLM does not know {0}; `vllm serve --help=all` lists what it takes"),
        (r"error: argument ", "see args in experts.yaml"),
        (PORT_TAKEN.pattern, "another program took the port; the next start takes another one"),
        (
            r"GatedRepoError|401 Client Error|403 Client Error",
            "the hub wants a token for this model: env: {{HF_TOKEN: ${{HF_TOKEN}}}}",
        ),
        (
            r"Repo id must|Invalid repository ID|RepositoryNotFound|LocalEntryNotFound|OfflineModeIsEnabled"
            r"|is not a local folder|(?:can't|cannot) (?:load|find|connect).*(?:config|model|huggingface)"
            r"|couldn't connect to .*huggingface|No such file or directory: '(?:[^']*config\.json)'",
            "the model was not found: a path is relative to the folder of experts.yaml, any other name is asked of the hub",
        ),
        (
            r"out of memory|OutOfMemoryError|No available memory for the cache|less than desired GPU memory"
            r"|can't allocate memory|Cannot allocate memory|is larger than the (?:maximum|available)|KV cache is needed",
            "there is not enough memory: lower --max-model-len or --gpu-memory-utilization, quantise, or give it more GPUs "
            "with --tensor-parallel-size (on the CPU: --kv-cache-memory-bytes)",
        ),
        (r"LoRA rank (\d+) is greater than", "an adapter has rank {0}: args: [--max-lora-rank, {0}]"),
        (
            r"ended by itself, with status -9$",
            "it was killed: where nobody did, the system did for want of memory (see dmesg)",
        ),
        (r"(No module named .+)", "{0}: is vLLM whole in its environment?"),
    )
)
_CAUSE = re.compile(r"^(?:.*?\] )?((?:[\w.]*\.)?[A-Z][A-Za-z]*(?:Error|Exception)\b.*|.*\berror: .*)$", re.MULTILINE)
_LATER = re.compile(r"Engine core initialization failed|^keeper: |resource_tracker")


@dataclass(frozen=True)
class Diagnosis:
    """The line that says it best, empty where none does, and what to do where that is known. Neither is long."""

    cause: str
    hint: str = ""

    @property
    def line(self) -> str:
        """Both, for people."""
        return "; ".join(filter(None, (self.cause, self.hint)))


def diagnose(log: str) -> Diagnosis:
    """Read the log of one start."""
    causes = [cause for cause in _CAUSE.findall(log) if not _LATER.search(cause)]
    cause = _short(causes[-1].strip(" .") if causes else "")
    for pattern, hint in _KNOWN:
        if found := pattern.search(log):
            return Diagnosis(cause, hint.format(_short(found[1].strip() if found.groups() else "")))
    return Diagnosis(cause)


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
