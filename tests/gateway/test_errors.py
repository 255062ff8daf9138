from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.errors import (
    OPENAI,
    AuthenticationError,
    BadRequestError,
    BodyTooLargeError,
    BusyError,
    GatewayError,
    InternalError,
    MethodError,
    NotFoundError,
    RequestTimeoutError,
    UpstreamGatewayError,
    error_body,
)

TEXTS = st.text(max_size=60)


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (BadRequestError("m"), 400, "invalid_request_error", "invalid_request"),
        (AuthenticationError("m"), 401, "authentication_error", "invalid_api_key"),
        (NotFoundError("m"), 404, "invalid_request_error", "not_found"),
        (MethodError("m"), 405, "invalid_request_error", "method_not_allowed"),
        (RequestTimeoutError("m"), 408, "invalid_request_error", "request_timeout"),
        (BodyTooLargeError("m"), 413, "invalid_request_error", "request_too_large"),
        (InternalError("m"), 500, "api_error", "internal_error"),
        (BusyError("m", 1), 503, "api_error", "busy"),
        (UpstreamGatewayError(503, "m", code="upstream_timeout"), 503, "upstream_error", "upstream_timeout"),
    ],
)
def test_each_error_has_the_status_that_clients_map_and_openai_s_shape(
    error: GatewayError, status: int, kind: str, code: str
) -> None:
    assert error.status == status
    assert json.loads(error.body()) == {"error": {"message": "m", "type": kind, "param": None, "code": code}}


def test_every_error_class_stands_in_the_drawing_with_its_status() -> None:
    drawing = errors.__doc__ or ""
    for cls in GatewayError.__subclasses__():
        (line,) = [line for line in drawing.splitlines() if f" {cls.__name__} " in f"{line} "]
        assert cls is UpstreamGatewayError or str(cls.status) in line


def test_a_param_and_a_code_of_one_s_own_reach_the_client() -> None:
    error = NotFoundError("no such model", param="model", code="model_not_found")
    assert json.loads(error.body())["error"] == {
        "message": "no such model",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert NotFoundError.code == "not_found"


def test_headers_of_an_error_are_its_own() -> None:
    given = {"retry-after": "5"}
    error = UpstreamGatewayError(503, "m", code="c", headers=given)
    given["retry-after"] = "6"
    assert error.headers == {"retry-after": "5"}
    assert InternalError("m").headers == {}


@given(TEXTS, TEXTS, st.none() | TEXTS, st.none() | TEXTS)
def test_an_error_body_is_json_whatever_its_texts_hold(
    message: str, kind: str, param: str | None, code: str | None
) -> None:
    body = json.loads(error_body(message, kind, param, code))
    assert body == {"error": {"message": message, "type": kind, "param": param, "code": code}}


@given(st.text(max_size=60), TEXTS)
def test_an_error_event_is_one_event_whatever_its_texts_hold(message: str, code: str) -> None:
    event = OPENAI.event(message, code)
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert b"\r" not in event
    assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == code
