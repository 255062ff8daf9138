"""Failures: litellm's exceptions become ours here and nowhere else.

Its messages hold keys, addresses and tracebacks, and it gives connection failures and faults of its own the same names as a
provider's answers. So the chain of causes is read first: what happened to the connection, then the status that the provider
really sent, then the name of the exception. Only what is about the request is told with the provider's own words.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from gateway.exchange import Outcome
from gateway.upstreams.base import UpstreamError

# Each exception of litellm's, by name: its status where the provider sent none that is known.
STATUSES = {
    "AuthenticationError": 401,
    "PaymentRequiredError": 402,
    "PermissionDeniedError": 403,
    "NotFoundError": 404,
    "LiteLLMUnknownProvider": 404,
    "ModelNotMappedError": 404,
    "Timeout": 504,
    "BadRequestError": 400,
    "InvalidRequestError": 400,
    "UnsupportedParamsError": 400,
    "ContextWindowExceededError": 400,
    "ContentPolicyViolationError": 400,
    "RejectedRequestError": 400,
    "ImageFetchError": 400,
    "VectorStoreSearchError": 400,
    "UnprocessableEntityError": 422,
    "RateLimitError": 429,
    "BudgetExceededError": 429,
    "InternalServerError": 500,
    "APIError": 500,
    "APIConnectionError": 500,
    "APIResponseValidationError": 500,
    "JSONSchemaValidationError": 500,
    "OpenAIError": 500,
    "MockException": 500,
    # Of parts of litellm that are not used here.
    "GuardrailRaisedException": 500,
    "BlockedPiiEntityError": 500,
    "ModifyResponseException": 500,
    "SensitiveDataRouteException": 500,
    "BadGatewayError": 502,
    "ServiceUnavailableError": 503,
    "MidStreamFallbackError": 503,
}
CODES = {
    "ContextWindowExceededError": "context_length_exceeded",
    "ContentPolicyViolationError": "content_policy_violation",
    "UnsupportedParamsError": "unsupported_parameter",
}
UNREAD = frozenset({400, 422})
OPERATORS = frozenset({401, 402, 403, 404})  # about our configuration: not for the client's eyes
BUSY = frozenset({408, 429})
UNAVAILABLE = "provider_unavailable"
KEPT_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
UNREADABLE = "The request cannot be put into the words of this expert's provider."
PICTURES = "This expert takes pictures as data: URLs only."
_PREFIX = re.compile(r"(?:litellm\.)?\w+(?:Error|Exception|Timeout)\b[^-:]*(?::| -) ")
_NOISE = re.compile(
    r"\s*(?:Traceback \(most recent|Received Messages=|To drop these,|Handle with `|(?:Either provide one, )?or set `litellm).*",
    re.DOTALL,
)
_PARAMETERS = re.compile(r"does not support parameters: \[([^\]]*)\]")
MESSAGE_CHARACTERS = 1000


@dataclass
class Refusal:
    """A Reply that says no."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.headers = {"content-type": "application/json", **self.headers}

    async def read(self) -> bytes:
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "api_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    async def chunks(self) -> Any:
        yield await self.read()

    def close(self) -> None:
        pass


class Stage(Enum):
    """How far a request came: nothing has left us, it was sent, a stream was begun."""

    PREPARING = 0
    ASKING = 1
    READING = 2


def failure(error: Exception, stage: Stage, secrets: Collection[str]) -> Refusal | UpstreamError:
    """What an exception of litellm's means: a provider's answer, or what there was instead of one. No message of a refusal
    holds one of `secrets`."""
    chain = list(_causes(error))
    answered = next((answer for cause in chain if (answer := _answer_of(cause)) is not None), None)
    if answered is not None:
        return _refused(chain, *answered, secrets)
    broken, reading = _connection_failure(chain), stage is Stage.READING
    if broken is not None:
        return UpstreamError(Outcome.TRUNCATED, "its answer broke off") if broken.reset and reading else broken
    if reading:
        return UpstreamError(Outcome.STREAM_ERROR, "it reported an error in its stream")
    if any(isinstance(cause, ImportError) for cause in chain):
        return Refusal(404, "litellm lacks a package that this provider needs.", UNAVAILABLE)
    if any(re.search("Credential|UnknownProvider", type(cause).__name__) for cause in chain):
        return Refusal(404, "litellm knows no such provider, or has no credentials for it.", UNAVAILABLE)
    name = _name_of(chain)
    if stage is Stage.PREPARING:
        return _unsent(name, chain, secrets)
    if name in CODES:
        return _about_request(STATUSES[name], name, _words(chain, secrets), {})
    # Nobody sent a 400: it is what litellm says of an answer that it cannot read.
    return Refusal(500 if STATUSES[name] in UNREAD else STATUSES[name], "The provider's answer cannot be read.")


def _refused(
    chain: Sequence[BaseException], status: int, headers: Mapping[str, str], secrets: Collection[str]
) -> Refusal:
    """A provider's answer other than success."""
    kept = {header: headers[header] for header in KEPT_HEADERS if header in headers}
    name = _name_of(chain)
    if name in CODES:
        status = STATUSES[name]  # which error it is was read from the words: some send a 413 or a 500 for a long prompt
    if not 400 <= status < 500 or status in OPERATORS or status in BUSY:
        return _about_server(status, kept)
    return _about_request(status, name, _words(chain, secrets), kept)


def _unsent(name: str, chain: Sequence[BaseException], secrets: Collection[str]) -> Refusal:
    """What litellm would not or could not send."""
    if STATUSES[name] in OPERATORS:
        return Refusal(404, "litellm will not ask the provider as it is set in experts.yaml.", UNAVAILABLE)
    told = STATUSES[name] == 400 and not any(isinstance(cause, LookupError) for cause in chain)
    return _about_request(400, name, _words(chain, secrets) if told else UNREADABLE, {})


def _about_server(status: int, headers: dict[str, str]) -> Refusal:
    return Refusal(status, f"The provider answered with status {status}.", headers=headers)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what led to it, outermost first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen and not isinstance(cause, UpstreamError):
        seen.add(id(cause))
        yield cause
        following = getattr(cause, "original_exception", None) or cause.__cause__
        cause = following or (None if cause.__suppress_context__ else cause.__context__)


def _connection_failure(chain: Sequence[BaseException]) -> UpstreamError | None:
    """What happened to the connection, by the names of the HTTP clients that litellm uses (httpx over aiohttp)."""
    names = {cls.__name__ for cause in chain if _is_of(cause, "httpx", "aiohttp") for cls in type(cause).__mro__}
    if names & {"TimeoutException", "ServerTimeoutError"}:
        return UpstreamError(Outcome.TIMEOUT, "it did not answer in time")
    if names & {"ConnectError", "ClientConnectorError", "ProxyError", "UnsupportedProtocol"}:
        return UpstreamError(Outcome.CONNECT_ERROR, "it could not be reached")
    if "ClientPayloadError" in names:
        return UpstreamError(Outcome.TRUNCATED, "its answer broke off")
    if names & {"TransportError", "ClientConnectionError"}:
        return UpstreamError(Outcome.CONNECT_ERROR, "the connection failed", reset=True)
    return None


def _is_of(cause: BaseException, *packages: str) -> bool:
    return type(cause).__module__.partition(".")[0] in packages


def _name_of(chain: Sequence[BaseException]) -> str:
    """What the table calls the outermost exception of litellm's that says more than that something failed in a stream."""
    names = (cls.__name__ for cause in chain for cls in type(cause).__mro__ if cls.__module__ == "litellm.exceptions")
    known = [name for name in names if name in STATUSES and name != "MidStreamFallbackError"]
    return known[0] if known else "APIError"


def _answer_of(cause: BaseException) -> tuple[int, Mapping[str, str]] | None:
    """Status and headers that the provider sent. Exceptions of litellm's own carry made-up ones."""
    kinds = {cls.__name__ for cls in type(cause).__mro__}
    if type(cause).__module__ == "litellm.exceptions" or not kinds & {"HTTPStatusError", "APIStatusError"}:
        return None
    response = getattr(cause, "response", None)
    return getattr(response, "status_code", 500), getattr(response, "headers", {})


def _about_request(status: int, name: str, message: str, headers: dict[str, str]) -> Refusal:
    if name == "ImageFetchError":
        return Refusal(status, PICTURES, param="messages")
    if lacking := _PARAMETERS.search(message):
        names = [part.strip(" '\"") for part in lacking[1].split(",")]
        return Refusal(status, f"This expert's provider has no {' nor '.join(names)}.", CODES[name], names[0])
    return Refusal(status, message, CODES.get(name), headers=headers)


def _words(chain: Sequence[BaseException], secrets: Collection[str]) -> str:
    """The provider's message without litellm's around it, cut, and without what is nobody's business."""
    text = str(getattr(chain[0], "message", "") or chain[0])
    while match := _PREFIX.match(text):
        text = text[match.end() :]
    text = _NOISE.sub("", _inner_message(text))
    for secret in secrets:
        text = text.replace(secret, "…")
    return text.strip()[:MESSAGE_CHARACTERS] or "The provider refused the request."


def _inner_message(text: str) -> str:
    """The message of an error body, whatever its dialect; the text itself where it is no such body."""
    begin = text.find("{")
    try:
        body = msgspec.json.decode(text[begin : text.rfind("}") + 1]) if begin >= 0 else None
    except (msgspec.DecodeError, RecursionError):
        return text
    error = body.get("error", body) if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else text
