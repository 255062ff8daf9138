"""What the API's description says is true of the gateway that runs, for requests that keep to it and for those that do not.

A real process over an expert that takes anything, so that whatever fails is the gateway's. Bounded and repeatable: the same
requests in every run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema_rs import ValidationError
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.openapi import CARRIED
from gateway.routes.carried import KINDS
from tests.fakes.anything import EXPERTS, STREAMED, takes_anything
from tests.fakes.raw import RawServer, raw_server
from tests.fakes.upstream import PATIENCE
from tests.integration.conftest import Command, serve

HELLO = [{"role": "user", "content": "x"}]
KEY, ADMIN = "key-of-team-a", "key-of-the-admin"
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OPERATIONS = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/v1/catalog"),
    ("POST", "/v1/route"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("POST", "/admin/reload"),
    ("GET", "/admin/config"),
    ("GET", "/admin/experts"),
    ("GET", "/v1/receipts/{request_id}"),
    ("GET", "/admin/receipts/{request_id}"),
    ("GET", "/admin/usage"),
    *(("POST", path) for path in KINDS),
]


@pytest.fixture(scope="module")
def expert() -> Iterator[RawServer]:
    with raw_server(takes_anything) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(expert: RawServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Afterwards its log must hold no traceback."""
    folder = tmp_path_factory.mktemp("gateway")
    config = folder / "experts.yaml"
    config.write_text(EXPERTS.format(url=expert.url))
    keys = {"MOE_GATEWAY_KEYS": f"team-a:{KEY}", "MOE_GATEWAY_ADMIN_KEY": ADMIN}
    with serve("--config", str(config), "--state", str(folder), environment=keys) as command:
        yield command
    log = "".join(command.screen)
    assert "Traceback" not in log
    assert "the gateway failed" not in log


@pytest.fixture(scope="module")
def client(gateway: Command) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=PATIENCE) as made:
        yield made


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    described: dict[str, Any] = client.get("/openapi.json").json()
    return described


def key_of(path: str) -> dict[str, str]:
    return {"authorization": f"Bearer {ADMIN if path.startswith('/admin') else KEY}"}


def filled(path: str) -> str:
    return path.replace("{model}", "auto").replace("{request_id}", "req-1")


def checked(case: Case[Any], url: str) -> None:
    """Send it and see that the answer is as described."""
    sent = dict(case.headers or {}) | key_of(case.path)
    case.headers = sent  # type: ignore[assignment]
    case.validate_response(case.call(base_url=url, timeout=20), checks=CHECKS)


def test_the_description_is_valid_and_names_every_operation(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document).validate()
    broken = json.loads(json.dumps(document))
    broken["paths"]["/health"]["get"]["responses"] = []
    with pytest.raises(ValidationError):
        schemathesis.openapi.from_dict(broken).validate()
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == set(OPERATIONS)
    assert set(CARRIED) == set(KINDS)


def test_no_operation_fails_in_fastapi_s_way(document: dict[str, Any]) -> None:
    assert "ValidationError" not in json.dumps(document)
    for path, item in document["paths"].items():
        for operation in item.values():
            assert "422" not in operation["responses"]
            shape = operation["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"]
            assert shape.endswith("AnthropicError" if path.startswith("/v1/messages") else "/Error")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_whatever_is_sent_the_answer_is_as_described(
    gateway: Command, document: dict[str, Any], method: str, path: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_dict(document)[path][method]
    takes_input = bool(operation.body or operation.path_parameters)
    if mode is GenerationMode.NEGATIVE and not takes_input:
        return

    @settings(
        max_examples=8 if takes_input else 1,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers(case: Case[Any]) -> None:
        checked(case, gateway.url)

    answers()


@pytest.mark.parametrize("path", KINDS)
def test_a_stream_comes_where_one_is_described_and_nowhere_else(
    client: httpx.Client, document: dict[str, Any], path: str
) -> None:
    body = {"prompt": "x", "input": "x", "messages": HELLO, "max_tokens": 5, "stream": True}
    if path == "/v1/embeddings":
        del body["messages"]
    answer = client.post(path, json=body, headers=key_of(path))
    assert answer.status_code == 200
    described = document["paths"][path]["post"]["responses"]["200"]["content"]
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in described
    assert (kind == "text/event-stream") is ("text/event-stream" in described) is (path in STREAMED)


@pytest.mark.parametrize("path", KINDS)
def test_the_edges_of_what_is_described_are_answered_as_described(
    gateway: Command, document: dict[str, Any], path: str
) -> None:
    schema = schemathesis.openapi.from_dict(document)
    operation = schema[path]["POST"]
    cases = schema.iter_coverage_cases(
        operation, generation_modes=list(GenerationMode), generation_config=schema.config.generation
    )
    tried = 0
    for case, _ in zip(cases, range(40), strict=False):
        if case.method == "POST":
            checked(case, gateway.url)
            tried += 1
    assert tried > 10


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_an_unsupported_method_is_405_with_those_that_are(client: httpx.Client, method: str, path: str) -> None:
    url = filled(path)
    for other in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - {method}:
        answer = client.request(other, url, headers=key_of(path) | {"origin": "https://a.example"})
        assert (answer.status_code, answer.headers["content-type"]) == (405, "application/json")
        assert method in answer.headers["allow"].split(", ")
        assert "access-control-allow-origin" not in answer.headers
        error = answer.json()["error"]
        assert error["message"] == f"{other} {url} is not allowed here."
        assert error["type"] == "invalid_request_error"


def test_without_a_key_everything_described_as_keyed_is_401(client: httpx.Client, document: dict[str, Any]) -> None:
    for method, path in OPERATIONS:
        url, keyed = filled(path), path.startswith(("/v1/", "/admin/"))
        assert ("security" in document["paths"][path][method.lower()]) is keyed
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}, {"x-api-key": "é"}):
            raw = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = client.request(method, url, headers=raw)  # type: ignore[arg-type]
            assert (answer.status_code == 401) is keyed
            if keyed:
                error = answer.json()["error"]
                assert error["type"] == "authentication_error"
                assert ("param" in error) is not path.startswith("/v1/messages")
                assert answer.headers["www-authenticate"] == "Bearer"


HEADERS = ["x-request-id", "x-moe-session", "x-moe-policy", "x-moe-domain", "x-moe-max-cost-usd", "accept"]
HEADERS += [
    "content-type",
    "content-encoding",
    "traceparent",
    "tracestate",
    "anthropic-version",
    "anthropic-beta",
    "cookie",
]
VALUES = st.binary(max_size=40).map(lambda b: bytes(c for c in b if c >= 0x20 and c != 0x7F).strip()) | st.sampled_from(
    [b"nan", b"inf", b"1e999", b"-0", b"0x1", b"auto:best", b"general", b"gzip", b"identity", b"*/*", b"\xff" * 300]
)


@settings(max_examples=60, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
@given(path=st.sampled_from(list(KINDS)), headers=st.dictionaries(st.sampled_from(HEADERS), VALUES, max_size=4))
def test_whatever_headers_say_the_answer_is_no_fault(
    client: httpx.Client, expert: RawServer, path: str, headers: dict[str, bytes]
) -> None:
    body = {"prompt": "x", "input": "x", "messages": HELLO, "max_tokens": 5}
    if path == "/v1/embeddings":
        del body["messages"]
    expert.calls.clear()
    answer = client.post(path, json=body, headers=headers | key_of(path))  # type: ignore[arg-type]
    assert answer.status_code in (200, 400, 415)
    assert len(expert.calls) == (answer.status_code == 200)
    assert len(answer.headers["x-request-id"]) <= 128
    for call in expert.calls:
        assert "cookie" not in call.headers
        assert all(value.isascii() and value.isprintable() for value in call.headers.values())
    if answer.status_code != 200:
        assert answer.json()["error"]["type"] == "invalid_request_error"
