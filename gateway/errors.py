"""What can go wrong in the gateway, and how each is told to the client: always in OpenAI's shape.

GatewayError                 has a status, a type, a code
├── BadRequestError          400: the body is not what the endpoint takes
├── AuthenticationError      401: no key, or none that is known
├── ForeignPageError         403: a page of another site asks, where no key is asked for
├── NotFoundError            404: no such path, model
├── MethodError              405
├── BodyTooLargeError        413
├── EncodingError            415: the body is compressed
├── RequestTimeoutError      408: the body did not arrive in time
├── UpstreamGatewayError     whatever is left after every expert was tried: 408, 429, 502, 503, 504
├── PassedError              a refusal of the expert's own that is about the request, 400 as a rule: with its status
├── InternalError            500: a fault of ours; the message says nothing of it
└── BusyError                503: too many ask for the same at once, or what would answer is away; retry-after says when
SettingsError                the command line or the environment is wrong (no request is involved)
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class SettingsError(Exception):
    """Wrong command line or environment. The message is one line that says what to do."""


class GatewayError(Exception):
    """An answer other than success. `headers` go with it, such as retry-after."""

    status = 500
    type = "api_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.headers = message, param, dict(headers or {})
        self.code = code or type(self).code

    def body(self) -> bytes:
        """In OpenAI's shape."""
        return OPENAI.body(self)


class BadRequestError(GatewayError):
    status, type, code = 400, "invalid_request_error", "invalid_request"


class AuthenticationError(GatewayError):
    status, type, code = 401, "authentication_error", "invalid_api_key"


class ForeignPageError(GatewayError):
    status, type, code = 403, "permission_error", "foreign_page"


class NotFoundError(GatewayError):
    status, type, code = 404, "invalid_request_error", "not_found"


class MethodError(GatewayError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class RequestTimeoutError(GatewayError):
    status, type, code = 408, "invalid_request_error", "request_timeout"


class BodyTooLargeError(GatewayError):
    status, type, code = 413, "invalid_request_error", "request_too_large"


class EncodingError(GatewayError):
    status, type, code = 415, "invalid_request_error", "unsupported_encoding"


class UpstreamGatewayError(GatewayError):
    type, code = "upstream_error", "upstream_error"

    def __init__(self, status: int, message: str, *, code: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, code=code, headers=headers)
        self.status = status


class PassedError(GatewayError):
    status = 400
    type = "invalid_request_error"

    def __init__(self, status: int, message: str, param: str | None) -> None:
        super().__init__(message, param=param)
        self.status = status


class InternalError(GatewayError):
    code = "internal_error"


class BusyError(GatewayError):
    status, code = 503, "busy"

    def __init__(self, message: str, retry_after: int, code: str | None = None) -> None:
        """`retry_after` in seconds."""
        super().__init__(message, code=code, headers={"retry-after": str(retry_after)})


def error_body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """OpenAI's error object as JSON."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


class Shape:
    """How the clients of an endpoint are told of errors: as OpenAI's are."""

    def body(self, error: GatewayError) -> bytes:
        return error_body(error.message, error.type, error.param, error.code)

    def event(self, message: str, code: str) -> bytes:
        """The one server-sent event that ends a stream which failed after content was sent."""
        return b"data: " + error_body(message, "upstream_error", None, code) + b"\n\n"


class ResponsesShape(Shape):
    """OpenAI's Responses API: its streams have an event named error. Clients look for its fields in either of two places."""

    def event(self, message: str, code: str) -> bytes:
        error = {"type": "upstream_error", "code": code, "message": message, "param": None}
        return _named_event("error", {**error, "type": "error", "sequence_number": 0, "error": error})


class AnthropicShape(Shape):
    """Anthropic's: a type for each status; there is no param and no code, so that the message names the field."""

    def body(self, error: GatewayError) -> bytes:
        where = f"{error.param}: " if error.param and error.param not in error.message else ""
        kind = ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": where + error.message}})

    def event(self, message: str, code: str) -> bytes:
        return _named_event("error", {"type": "error", "error": {"type": "api_error", "message": message}})


def shape_of(path: str) -> Shape:
    """How errors are told to who asked for `path`."""
    return ANTHROPIC if path.startswith("/v1/messages") else OPENAI


def _named_event(name: str, data: Mapping[str, object]) -> bytes:
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


OPENAI, OPENAI_RESPONSES, ANTHROPIC = Shape(), ResponsesShape(), AnthropicShape()
ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
