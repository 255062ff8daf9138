"""Whether workers serve just what a file of experts asks of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from router.experts import load_experts
from tests.deploy.files import Worker


def assert_served(workers: Iterable[Worker], file: Path) -> None:
    """Each expert has one worker by the name in its address: same model, port, window and number of requests at once."""
    by_address = {worker.address: worker for worker in workers}
    experts = load_experts(file).experts
    assert by_address.keys() == experts.keys()
    for expert in experts.values():
        [replica] = expert.upstream.vllm
        url = urlsplit(replica.url)
        worker = by_address[str(url.hostname)]
        assert (url.scheme, url.path) == ("http", "/v1")
        assert worker.arguments[0] == expert.model, worker.place
        assert worker.flag("port") == str(url.port), worker.place
        assert worker.flag("max-model-len") == str(expert.context_window), worker.place
        assert worker.flag("max-num-seqs") == str(expert.max_in_flight), worker.place
        calls = "--enable-auto-tool-choice" in worker.arguments and worker.flag("tool-call-parser") is not None
        assert calls == ("tools" in expert.capabilities), worker.place
