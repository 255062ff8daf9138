"""The adapter for litellm's providers: OpenAI's and Anthropic's dialect over real sockets on loopback, and its own mock answers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.events import ChunkReader, EventSplitter
from gateway.exchange import Outcome
from gateway.upstreams.base import Reply, UpstreamError
from gateway.upstreams.litellm.arguments import CHAT, NO_KEY, Provider, arguments_for
from gateway.upstreams.litellm.failures import STATUSES, Refusal, Stage, failure
from gateway.upstreams.litellm.library import AMBIENT, Library
from gateway.upstreams.litellm.upstream import LiteLLMUpstream, ProviderAddress
from router.experts import Timeouts
from tests.fakes.providers import (
    TOOL,
    FakeProvider,
    answers,
    claude,
    claude_events,
    fake_provider,
    loaded,
    tool_chunks,
)
from tests.fakes.upstream import PATIENCE, FakeServer, chunk, endless, silent, status, streams, usage_chunk, well

ROOT = Path(__file__).parents[2]
KEY = "sk-secret-of-ours"
HELLO = {"messages": [{"role": "user", "content": "hi"}], "model": "whatever"}
TIMEOUTS = Timeouts()
DIALECTS = ("openai", "claude")

# Of litellm's own, which it hides itself where warnings are not errors; and of connections that it leaves to the collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Pydantic serializer warnings",
    "ignore::pydantic.PydanticDeprecatedSince211",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left_for_other_tests() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with fake_provider() as made:
        yield made


@pytest.fixture
async def upstream() -> AsyncIterator[LiteLLMUpstream]:
    made = LiteLLMUpstream(loaded)
    await made.start()
    yield made
    await made.close()


def address(provider: FakeProvider, dialect: str = "openai") -> ProviderAddress:
    """The provider as one of OpenAI's dialect, or as Anthropic's."""
    if dialect == "claude":
        return ProviderAddress("anthropic/claude-3-5-sonnet-20241022", provider.root, KEY)
    return ProviderAddress("openai/fake-model", provider.url, KEY)


async def post(
    upstream: LiteLLMUpstream, where: ProviderAddress, path: str = "/chat/completions", **body: Any
) -> Reply:
    return await upstream.post(where, path, json.dumps(HELLO | body).encode(), {"x-request-id": "r"}, TIMEOUTS)


async def read(reply: Reply) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(await reply.read())
    return body


async def events(reply: Reply) -> list[Any]:
    """The data of a stream's events; [DONE] as it is."""
    found = []
    async for event in reply.chunks():
        assert event.startswith(b"data: ")
        assert event.endswith(b"\n\n")
        data = event[6:-2]
        found.append(data.decode() if data == b"[DONE]" else json.loads(data))
    return found


async def _collect(reply: Reply, seen: list[bytes]) -> None:
    async for event in reply.chunks():
        seen.append(event)  # noqa: PERF401 - what was seen before it raises


async def _all(chunks: AsyncIterator[bytes]) -> list[bytes]:
    return [chunk async for chunk in chunks]


class TestAnswers:
    @pytest.mark.parametrize("dialect", DIALECTS)
    async def test_an_answer_in_one_piece_is_in_openais_shape(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, dialect: str
    ) -> None:
        provider.behaviour = claude if dialect == "claude" else well
        reply = await post(upstream, address(provider, dialect))
        body = await read(reply)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert body["object"] == "chat.completion"
        assert body["choices"] == [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello wörld"}}
        ]
        usage = body["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (11, 4)
        assert usage["prompt_tokens_details"]["cached_tokens"] == 3

    @pytest.mark.parametrize("dialect", DIALECTS)
    async def test_a_stream_is_in_openais_shape_and_ends_with_usage_and_done(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, dialect: str
    ) -> None:
        provider.behaviour = claude if dialect == "claude" else well
        reply = await post(upstream, address(provider, dialect), stream=True)
        assert reply.headers["content-type"] == "text/event-stream"
        *chunks, usage, done = await events(reply)
        assert done == "[DONE]"
        assert usage["choices"] == []
        assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (11, 4)
        assert all("usage" not in part for part in chunks)
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        assert "".join(part["choices"][0]["delta"].get("content", "") for part in chunks) == "Hello wörld"
        assert [part["choices"][0]["finish_reason"] for part in chunks] == [None] * (len(chunks) - 1) + ["stop"]
        reply.close()
        assert provider.wait_until_idle()

    async def test_the_relays_reader_understands_it(self, provider: FakeProvider, upstream: LiteLLMUpstream) -> None:
        splitter, reader = EventSplitter(), ChunkReader()
        final = []
        async for part in (await post(upstream, address(provider), stream=True)).chunks():
            final += [reader.read(event) for event in splitter.feed(part)]
        assert reader.ended
        assert reader.content
        assert final.count(True) == 1
        assert reader.usage is not None
        assert (reader.usage.input, reader.usage.cached_input, reader.usage.output) == (8, 3, 4)

    @pytest.mark.parametrize("dialect", DIALECTS)
    async def test_tools_are_called_in_one_piece_and_streamed(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, dialect: str
    ) -> None:
        called = {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Øl"}'}}
        ]}  # fmt: skip
        whole = answers({"id": "c", "choices": [{"index": 0, "message": called, "finish_reason": "tool_calls"}]})
        provider.behaviour = claude if dialect == "claude" else whole
        choice = (await read(await post(upstream, address(provider, dialect), tools=[TOOL])))["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert "content" in choice["message"]
        assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"
        assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"city": "Øl"}
        provider.behaviour = claude if dialect == "claude" else streams(*tool_chunks())
        *chunks, _, _ = await events(await post(upstream, address(provider, dialect), tools=[TOOL], stream=True))
        calls = [call for part in chunks for call in part["choices"][0]["delta"].get("tool_calls", ())]
        assert calls[0]["id"]
        assert calls[0]["function"]["name"] == "weather"
        assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"city": "Øl"}
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
        assert "weather" in json.dumps(provider.requests[-1]["tools"])

    async def test_embeddings_as_numbers_and_as_base64_of_token_ids(
        self, provider: FakeProvider, upstream: LiteLLMUpstream
    ) -> None:
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        for vector, asked in (
            ([0.5, -1.0], {"input": ["a"]}),
            ("AAAAPwAAgL8=", {"input": [[1, 2]], "encoding_format": "base64"}),
        ):
            data = [{"object": "embedding", "index": 0, "embedding": vector}]
            provider.behaviour = answers({"object": "list", "model": "fake", "data": data, "usage": usage})
            body = json.dumps({"model": "x", "later_field": 1, **asked}).encode()
            reply = await upstream.post(address(provider), "/embeddings", body, {}, TIMEOUTS)
            answer = await read(reply)
            assert answer["data"] == data
            assert answer["usage"]["prompt_tokens"] == 3
            assert provider.paths[-1] == "/v1/embeddings"
            assert provider.requests[-1] == {"model": "fake-model", "later_field": 1, **asked}

    @pytest.mark.parametrize("path", ["/completions", "/responses", "/messages"])
    async def test_what_litellm_does_wrong_is_not_asked_of_it(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, path: str
    ) -> None:
        reply = await post(upstream, address(provider), path)
        assert reply.status == 404
        assert provider.requests == []

    async def test_usage_that_the_provider_did_not_tell_is_not_invented(
        self, provider: FakeProvider, upstream: LiteLLMUpstream
    ) -> None:
        message = {"role": "assistant", "content": "Hello"}
        provider.behaviour = answers(
            {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        )
        assert "usage" not in await read(await post(upstream, address(provider)))
        provider.behaviour = streams(chunk({"content": "Hello"}), chunk({}, "stop"), b"data: [DONE]\n\n")
        *chunks, done = await events(await post(upstream, address(provider), stream=True))
        assert done == "[DONE]"
        assert all("usage" not in part for part in chunks)

    async def test_unknown_deltas_logprobs_and_reasoning_come_through(
        self, provider: FakeProvider, upstream: LiteLLMUpstream
    ) -> None:
        provider.behaviour = streams(
            chunk({"role": "assistant", "reasoning_content": "hm"}),
            chunk({"content": "a"}),
            chunk({}, "length"),
            usage_chunk(),
        )
        *chunks, _, _ = await events(await post(upstream, address(provider), stream=True))
        assert chunks[0]["choices"][0]["delta"]["reasoning_content"] == "hm"
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"

    async def test_words_that_a_model_repeats_are_no_error(
        self, provider: FakeProvider, upstream: LiteLLMUpstream
    ) -> None:
        provider.behaviour = streams(*[chunk({"content": "again "})] * 150, chunk({}, "stop"), usage_chunk())
        *chunks, _, _ = await events(await post(upstream, address(provider), stream=True))
        assert sum(part["choices"][0]["delta"].get("content") == "again " for part in chunks) == 150


class TestMockAnswers:
    """litellm's own mock answers, by a library that asks for them: no server is needed for the shapes."""

    class Mocked:
        def __init__(self, **mock: Any) -> None:
            self._mock = mock

        def __getattr__(self, name: str) -> Any:
            return getattr(loaded(), name)

        async def call(self, path: str, arguments: Mapping[str, Any], connect: float, total: float) -> Any:
            return await loaded().call(path, {**arguments, **self._mock}, connect, total)

    async def _posted(self, body: dict[str, Any], **mock: Any) -> Reply:
        made = LiteLLMUpstream(lambda: self.Mocked(**mock))  # type: ignore[arg-type, return-value]
        await made.start()
        try:
            return await post(made, ProviderAddress("groq/llama-3.1-8b-instant"), **body)
        finally:
            await made.close()

    async def test_a_mock_answer_whole_and_streamed(self) -> None:
        body = await read(await self._posted({}, mock_response="It is fine"))
        assert body["choices"][0]["message"]["content"] == "It is fine"
        seen: list[bytes] = []
        # A mock stream tells no reason for its end, as one that broke off.
        with pytest.raises(UpstreamError, match="broke off"):
            await _collect(await self._posted({"stream": True}, mock_response="It is fine"), seen)
        deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in seen]
        assert "".join(delta["content"] for delta in deltas) == "It is fine"

    async def test_mock_tool_calls(self) -> None:
        call = {"id": "call_9", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
        body = await read(await self._posted({"tools": [TOOL]}, mock_tool_calls=[call]))
        assert body["choices"][0]["message"]["tool_calls"] == [call]

    @pytest.mark.parametrize(
        ("mock", "code"),
        [
            ("litellm.RateLimitError", 429),
            ("litellm.InternalServerError", 500),
            ("litellm.ContextWindowExceededError", 400),
        ],
    )
    async def test_mock_errors(self, mock: str, code: int) -> None:
        assert (await self._posted({}, mock_response=mock)).status == code


class TestWhatIsSent:
    def sent(self, provider: Provider, path: str = "/chat/completions", **body: Any) -> dict[str, Any]:
        return arguments_for(path, body, provider, "p/m", "http://h/v1", KEY)

    OPENAI = Provider("groq", True, frozenset({"temperature", "tools"}))
    OTHER = Provider("anthropic", False, frozenset({"temperature", "tools", "max_tokens"}))

    def test_the_model_key_and_address_are_those_of_experts_yaml(self) -> None:
        sent = self.sent(
            self.OPENAI, model="evil/model", api_key="evil", api_base="http://evil", base_url="http://evil"
        )
        assert (sent["model"], sent["api_key"], sent["api_base"]) == ("p/m", KEY, "http://h/v1")
        assert sent["extra_body"] == {"api_key": "evil", "api_base": "http://evil", "base_url": "http://evil"}

    def test_nothing_of_a_clients_steers_litellm(self) -> None:
        """Every parameter that litellm's functions have beyond OpenAI's is kept from it, in either dialect."""
        import litellm

        steering = {
            *litellm.types.utils.all_litellm_params,
            "mock_response",
            "fallbacks",
            "callbacks",
            "extra_headers",
            "extra_body",
        }
        steering |= {
            "vertex_credentials",
            "aws_region_name",
            "azure_ad_token",
            "client",
            "model_list",
            "shared_session",
            "metadata",
        }
        body = dict.fromkeys(steering - {"model", *CHAT}, "evil")
        ours = {"model": "p/m", "api_key": KEY, "api_base": "http://h/v1"}
        for provider, beside in ((self.OTHER, {}), (self.OPENAI, {"extra_body": body})):
            sent = arguments_for("/chat/completions", body, provider, "p/m", "http://h/v1", KEY)
            assert sent == {**ours, **beside}
        assert not CHAT & {
            "api_key",
            "api_base",
            "base_url",
            "metadata",
            "extra_headers",
            "extra_body",
            "mock_response",
            "fallbacks",
        }

    def test_hints_and_what_happens_anyway_are_left_out_where_the_provider_has_no_word_for_it(self) -> None:
        sent = self.sent(self.OTHER, seed=1, user="u", n=1, logprobs=False, parallel_tool_calls=True, temperature=0.5)
        assert set(sent) == {"temperature", "model", "api_key", "api_base"}
        assert {"n", "logprobs", "logit_bias"} <= set(self.sent(self.OTHER, n=2, logprobs=True, logit_bias={"1": 1}))

    def test_usage_is_always_asked_for_in_streams(self) -> None:
        assert self.sent(self.OPENAI, stream=True)["stream_options"] == {"include_usage": True}
        options = {"include_usage": False, "continuous_usage_stats": True}
        assert self.sent(self.OTHER, stream=True, stream_options=options)["stream_options"] == {"include_usage": True}
        assert "stream_options" not in self.sent(self.OPENAI, stream=False, stream_options=options)

    def test_without_a_key_none_is_looked_for_but_in_the_chains_of_clouds(self) -> None:
        def key(name: str) -> str | None:
            return arguments_for("/chat/completions", {}, Provider(name, False, frozenset()), "p/m", None, None).get(
                "api_key"
            )

        assert key("groq") == key("anthropic") == NO_KEY
        assert key("bedrock") is None

    async def test_unknown_fields_reach_a_provider_of_openais_dialect(
        self, provider: FakeProvider, upstream: LiteLLMUpstream
    ) -> None:
        extra: dict[str, Any] = {
            "top_k": 3,
            "guided_json": {"a": 1},
            "metadata": {"a": "b"},
            "api_base": "http://127.0.0.1:9",
            "mock_response": "no",
        }
        await post(upstream, address(provider), **extra)
        assert provider.requests[-1] == {"model": "fake-model", "messages": HELLO["messages"], **extra}

    @pytest.mark.parametrize(
        ("model", "root", "variable"),
        [
            ("openai/x", "url", "OPENAI_API_KEY"),
            ("hosted_vllm/x", "url", "HOSTED_VLLM_API_KEY"),
            ("anthropic/x", "root", "ANTHROPIC_API_KEY"),
            ("groq/x", "url", "GROQ_API_KEY"),
            ("mistral/x", "url", "MISTRAL_API_KEY"),
            ("gemini/x", "root", "GEMINI_API_KEY"),
            ("deepseek/x", "url", "DEEPSEEK_API_KEY"),
            ("openrouter/x", "url", "OPENROUTER_API_KEY"),
            ("together_ai/x", "url", "TOGETHERAI_API_KEY"),
        ],
    )
    async def test_no_key_of_the_environment_is_ever_sent(
        self,
        provider: FakeProvider,
        upstream: LiteLLMUpstream,
        model: str,
        root: str,
        variable: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in (variable, "OPENAI_API_KEY", "GOOGLE_API_KEY", "CO_API_KEY"):
            monkeypatch.setenv(name, "sk-ambient")
        provider.behaviour = status(500)
        await post(upstream, ProviderAddress(model, getattr(provider, root), None))
        assert provider.headers, "the provider was not asked"
        assert not any("sk-ambient" in value for headers in provider.headers for value in headers.values())
        provider.headers.clear()
        await post(upstream, ProviderAddress(model, getattr(provider, root), KEY))
        assert any(KEY in value for headers in provider.headers for value in headers.values())

    async def test_a_picture_behind_an_address_is_not_fetched(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import litellm

        monkeypatch.setattr(litellm, "user_url_validation", False)  # litellm's own guard spares loopback alone
        part = {"type": "image_url", "image_url": {"url": f"{provider.root}/picture.png"}}
        reply = await post(
            upstream, ProviderAddress("gemini/x", provider.root, KEY), messages=[{"role": "user", "content": [part]}]
        )
        assert reply.status == 400
        assert "data: URLs" in (await read(reply))["error"]["message"]
        assert provider.paths == []

    async def test_a_tool_that_names_a_server_makes_litellm_call_none(
        self, provider: FakeProvider, upstream: LiteLLMUpstream
    ) -> None:
        tool = {
            "type": "mcp",
            "server_label": "litellm",
            "server_url": "litellm_proxy/mcp/x",
            "require_approval": "never",
        }
        await post(upstream, address(provider), tools=[tool])
        assert provider.requests[-1]["tools"] == [tool]


class TestRefusals:
    @pytest.mark.parametrize("dialect", DIALECTS)
    @pytest.mark.parametrize("stream", [False, True])
    async def test_the_providers_status_and_retry_after_are_kept(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, dialect: str, stream: bool
    ) -> None:
        for code in (400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 529):
            message = f"no, {KEY} at {provider.root} is wrong"
            provider.behaviour = status(
                code, {"error": {"type": "x", "message": message}}, {"retry-after": "7", "retry-after-ms": "6900"}
            )
            reply = await post(upstream, address(provider, dialect), stream=stream)
            assert reply.status == code
            assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("7", "6900")
            body = await reply.read()
            assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
            assert KEY.encode() not in body
            assert str(provider.port).encode() not in body
            told = code in (400, 409, 413, 418, 422)
            assert (b"is wrong" in body) == told, code

    @pytest.mark.parametrize(
        ("dialect", "message"),
        [
            ("openai", "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"),
            ("claude", "prompt is too long: 208310 tokens > 200000 maximum"),
        ],
    )
    async def test_a_prompt_that_is_too_long_is_said_so_with_a_code(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, dialect: str, message: str
    ) -> None:
        provider.behaviour = status(400, {"error": {"type": "invalid_request_error", "message": message}})
        reply = await post(upstream, address(provider, dialect))
        error = (await read(reply))["error"]
        assert (reply.status, error["code"], error["message"]) == (400, "context_length_exceeded", message)

    async def test_a_parameter_that_the_provider_lacks_is_refused_by_name(
        self, provider: FakeProvider, upstream: LiteLLMUpstream
    ) -> None:
        reply = await post(upstream, address(provider, "claude"), logit_bias={"1": 1})
        error = (await read(reply))["error"]
        assert (reply.status, error["code"], error["param"]) == (400, "unsupported_parameter", "logit_bias")
        assert provider.requests == []

    @pytest.mark.parametrize(
        "body",
        [
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            {"messages": [{"role": "user", "content": [{"type": "weird"}]}]},
            {"messages": [{"role": "tool", "content": "x"}]},
            {"messages": [{"role": "alien", "content": "x"}]},
            {"tools": [{"type": "function"}]},
            {"response_format": {"type": "json_schema"}},
            {"max_tokens": "many"},
        ],
    )
    async def test_what_cannot_be_translated_is_the_clients_fault_and_not_the_providers(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, body: dict[str, Any]
    ) -> None:
        """litellm calls its own KeyError a failed connection: three of them would open a breaker."""
        reply = await post(upstream, address(provider, "claude"), **body)
        message = (await read(reply))["error"]["message"]
        assert reply.status == 400
        assert "Traceback" not in message
        assert "litellm" not in message
        assert provider.requests == []

    @pytest.mark.parametrize("model", ["no_such_provider/x", "bedrock/anthropic.claude-v2", "sagemaker/x"])
    async def test_a_provider_that_cannot_be_asked_is_our_configuration(
        self, upstream: LiteLLMUpstream, model: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        reply = await post(upstream, ProviderAddress(model))
        assert reply.status == 404
        assert [record.levelname for record in caplog.records if record.name == "moe_gateway"] == ["ERROR"]

    @pytest.mark.parametrize("dialect", DIALECTS)
    @pytest.mark.parametrize("body", [{"hello": 1}, {"error": {"message": "boom"}}])
    async def test_an_answer_that_is_none_is_the_servers_error(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, dialect: str, body: dict[str, Any]
    ) -> None:
        provider.behaviour = answers(body)
        assert (await post(upstream, address(provider, dialect))).status == 500


class TestConnections:
    @pytest.mark.parametrize("model", ["openai/x", "anthropic/x", "gemini/x", "groq/x"])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_refused_connection_is_a_connect_error(
        self, upstream: LiteLLMUpstream, model: str, stream: bool
    ) -> None:
        with pytest.raises(UpstreamError) as raised:
            await post(upstream, ProviderAddress(model, "http://127.0.0.1:9", KEY), stream=stream)
        assert raised.value.outcome is Outcome.CONNECT_ERROR
        assert "127.0.0.1" not in str(raised.value)

    @pytest.mark.parametrize("dialect", DIALECTS)
    async def test_what_takes_longer_than_total_is_a_time_out(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, dialect: str
    ) -> None:
        provider.behaviour = silent
        body = json.dumps(HELLO).encode()
        with pytest.raises(UpstreamError) as raised:
            await upstream.post(address(provider, dialect), "/chat/completions", body, {}, Timeouts(total=0.2))
        assert raised.value.outcome is Outcome.TIMEOUT
        assert len(provider.requests) == 1, "it was asked again"

    @pytest.mark.parametrize("dialect", DIALECTS)
    @pytest.mark.parametrize("then", ["end", "cut"])
    async def test_a_stream_that_breaks_off_is_truncated(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, dialect: str, then: str
    ) -> None:
        """litellm itself would say finish_reason: stop."""
        begun = (
            claude_events("Hel", "lo")[:4]
            if dialect == "claude"
            else [chunk({"content": "Hel"}), chunk({"content": "lo"})]
        )
        provider.behaviour = streams(*begun, then=then)
        reply = await post(upstream, address(provider, dialect), stream=True)
        seen: list[bytes] = []
        with pytest.raises(UpstreamError) as raised:
            await _collect(reply, seen)
        assert raised.value.outcome is Outcome.TRUNCATED
        assert b"Hel" in b"".join(seen)
        assert b"[DONE]" not in b"".join(seen)

    @pytest.mark.parametrize("dialect", DIALECTS)
    async def test_an_error_in_a_stream_is_a_stream_error(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, dialect: str
    ) -> None:
        openai = b'data: {"error": {"message": "boom", "type": "x", "code": 500}}\n\n'
        claudes = (
            b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
        )
        begun = claude_events("Hel")[:3] if dialect == "claude" else [chunk({"content": "Hel"})]
        error = claudes if dialect == "claude" else openai
        provider.behaviour = streams(*begun, error)
        reply = await post(upstream, address(provider, dialect), stream=True)
        with pytest.raises(UpstreamError) as raised:
            await reply.read()
        assert raised.value.outcome is Outcome.STREAM_ERROR
        provider.behaviour = streams(error)
        with pytest.raises(UpstreamError) as raised:
            await post(upstream, address(provider, dialect), stream=True)
        assert raised.value.outcome is Outcome.STREAM_ERROR

    @pytest.mark.parametrize("model", ["openai/x", "anthropic/x", "groq/x", "gemini/x"])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_client_that_leaves_before_the_answer_frees_the_provider(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, model: str, stream: bool
    ) -> None:
        provider.behaviour = silent
        asking = asyncio.create_task(post(upstream, ProviderAddress(model, provider.url, KEY), stream=stream))
        assert await asyncio.to_thread(provider.wait_until_asked)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(provider.wait_until_idle)

    @pytest.mark.parametrize("model", ["openai/x", "anthropic/x", "groq/x"])
    @pytest.mark.parametrize("paused", [False, True])
    async def test_a_client_that_leaves_a_stream_frees_the_provider(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, model: str, paused: bool
    ) -> None:
        """Whether it leaves while we wait for the provider, or while it holds the provider up."""
        begun = (
            claude_events("Hel", "lo")[:4]
            if "anthropic" in model
            else [chunk({"content": "a"}), chunk({"content": "b"})]
        )
        provider.behaviour = streams(*begun, then="hang")
        reply = await post(upstream, ProviderAddress(model, provider.url, KEY), stream=True)
        chunks = reply.chunks()
        await anext(chunks)
        if not paused:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(_all(chunks), 0.2)
        reply.close()
        reply.close()
        assert await asyncio.to_thread(provider.wait_until_idle)

    async def test_an_endless_stream_is_left_at_once(self, provider: FakeProvider, upstream: LiteLLMUpstream) -> None:
        provider.behaviour = endless
        for where in (address(provider), ProviderAddress("groq/x", provider.url, KEY)):
            reply = await post(upstream, where, stream=True)
            await anext(reply.chunks())
            reply.close()
            assert await asyncio.to_thread(provider.wait_until_idle)

    @pytest.mark.parametrize("dialect", DIALECTS)
    async def test_a_connection_is_kept_for_the_next_request(
        self, provider: FakeProvider, upstream: LiteLLMUpstream, dialect: str
    ) -> None:
        provider.behaviour = claude if dialect == "claude" else well
        for stream in (False, True, False, True, False, True):
            await (await post(upstream, address(provider, dialect), stream=stream)).read()
        # litellm may keep one for streams and one for others, and drop one that its clean-up came upon; six would be none kept.
        assert len(provider.connections) <= 4

    async def test_many_at_once_do_not_disturb_each_other(
        self, provider: FakeProvider, upstream: LiteLLMUpstream
    ) -> None:
        provider.behaviour = streams(
            chunk({"content": "a"}), *[chunk({"content": "b"})] * 5, chunk({}, "stop"), usage_chunk(), pause=0.01
        )
        replies = await asyncio.gather(*(post(upstream, address(provider), stream=True) for _ in range(10)))
        reads = [asyncio.create_task(reply.read()) for reply in replies[1:]]
        replies[0].close()
        for answer in await asyncio.gather(*reads):
            assert answer.count(b'"content":"b"') == 5
            assert answer.endswith(b"data: [DONE]\n\n")


class TestLoading:
    async def test_a_failed_import_is_tried_once_told_once_and_never_in_a_request(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        tried = []

        def load() -> Library:
            tried.append(1)
            raise ModuleNotFoundError("No module named 'litellm'")

        made = LiteLLMUpstream(load)
        await made.start()
        await made.start()
        where = ProviderAddress("openai/x", None, KEY)
        for _ in range(3):
            with pytest.raises(UpstreamError) as raised:
                await post(made, where)
            assert raised.value.outcome is Outcome.CONNECT_ERROR
            assert not await made.healthy(where)
        await made.close()
        assert len(tried) == 1
        assert len(caplog.records) == 1

    async def test_the_import_leaves_the_loop_free(self) -> None:
        go = threading.Event()

        def load() -> Library:
            assert go.wait(PATIENCE)
            return loaded()

        made = LiteLLMUpstream(load)
        starting = asyncio.create_task(made.start())
        await asyncio.sleep(0.05)
        assert not starting.done()
        go.set()
        await starting
        assert await made.healthy(ProviderAddress("openai/x"))
        await made.close()

    async def test_the_last_that_closes_leaves_no_connection_of_its_loop_open(self, provider: FakeProvider) -> None:
        """In the second loop of a process as well: there litellm has a session that is not in its cache."""

        async def use() -> None:
            made = LiteLLMUpstream(loaded)
            await made.start()
            for dialect in DIALECTS:
                provider.behaviour = claude if dialect == "claude" else well
                await (await post(made, address(provider, dialect), stream=True)).read()
            await made.close()
            sessions = [found for found in gc.get_objects() if type(found) is aiohttp.ClientSession]
            assert [
                session for session in sessions if session._loop is asyncio.get_running_loop() and not session.closed
            ] == []

        await asyncio.to_thread(asyncio.run, use())
        await use()

    async def test_one_that_closes_leaves_the_connections_of_the_other(self, provider: FakeProvider) -> None:
        """As when another experts.yaml takes over while the last requests of the one before end."""
        old, new = LiteLLMUpstream(loaded), LiteLLMUpstream(loaded)
        await old.start()
        await new.start()
        provider.behaviour = streams(chunk({"content": "a"}), chunk({}, "stop"), usage_chunk(), pause=0.05)
        reply = await post(new, address(provider), stream=True)
        await old.close()
        assert b"[DONE]" in await reply.read()
        provider.behaviour = well
        assert (await post(new, address(provider))).status == 200
        await new.close()

    async def test_health_is_known_without_asking_the_provider(
        self, provider: FakeProvider, upstream: LiteLLMUpstream
    ) -> None:
        assert await upstream.healthy(address(provider))
        assert not await upstream.healthy(ProviderAddress("no_such_provider/x"))
        assert await upstream.fetch(address(provider), "/metrics") is None
        assert provider.paths == []

    def test_an_address_does_not_show_its_key(self) -> None:
        where = ProviderAddress("openai/x", "http://h:1/v1", KEY)
        assert KEY not in repr(where)
        assert ProviderAddress("openai/x").url == "litellm:openai/x"

    @pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_API_BASE", "LITELLM_DROP_PARAMS", "USE_LITELLM_PROXY"])
    def test_variables_that_would_redirect_requests_are_known(self, name: str) -> None:
        assert AMBIENT.fullmatch(name)
        assert not AMBIENT.fullmatch("OPENAI_API_KEY")
        assert not AMBIENT.fullmatch("MOE_GATEWAY_KEYS")

    def test_a_process_opens_no_connection_but_to_the_provider_and_logs_nothing(self) -> None:
        """From a fresh import on, with everything in the environment that would lead it astray."""

        async def well_or_not(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
            return await (status(500) if "teapot" in body else well)(server, request, body)

        with fake_provider(well_or_not) as provider, fake_provider() as elsewhere:
            strays = {
                "OPENAI_BASE_URL": elsewhere.url,
                "OPENAI_API_BASE": elsewhere.url,
                "OPENAI_API_KEY": "sk-ambient",
                "LITELLM_LOG": "DEBUG",
                "LITELLM_PROXY_API_BASE": elsewhere.url,
                "USE_LITELLM_PROXY": "True",
            }
            script = ROOT / "tests/fakes/litellm_process.py"
            command = [sys.executable, str(script), provider.url]
            environment = {**os.environ, **strays, "PYTHONPATH": str(ROOT)}
            run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
            assert run.returncode == 0, run.stderr
            told = json.loads(run.stdout)
            assert told["connected"] == [["127.0.0.1", provider.port]]
            assert told["statuses"] == [200, 200, 200, 500]
            assert told["base_url_kept"] is False
            assert [name for name in told["threads"] if "litellm" in name.lower()] == []
            assert told["tasks"] == 1
            assert elsewhere.requests == []
            assert "sk-" not in run.stderr
            assert provider.url not in run.stderr


def _exceptions() -> dict[str, type[BaseException]]:
    import litellm.exceptions

    found = inspect.getmembers(litellm.exceptions, inspect.isclass)
    return {name: cls for name, cls in found if issubclass(cls, Exception) and cls.__module__ == "litellm.exceptions"}


class TestExceptions:
    def test_every_exception_of_litellms_is_in_the_table_and_no_other(self) -> None:
        loaded()
        import litellm.exceptions

        assert set(STATUSES) == set(_exceptions())
        assert {cls.__name__ for cls in litellm.exceptions.LITELLM_EXCEPTION_TYPES} <= set(STATUSES)

    @pytest.mark.parametrize("stage", list(Stage))
    def test_every_exception_becomes_an_answer_or_an_error_without_a_secret(self, stage: Stage) -> None:
        loaded()
        for name, cls in _exceptions().items():
            error = cls.__new__(cls)
            Exception.__init__(error, f"{KEY} failed")
            error.message = f"litellm.{name}: OpenAIException - {KEY} failed"  # type: ignore[attr-defined]
            found = failure(error, stage, (KEY,))  # type: ignore[arg-type]
            assert KEY not in (found.message if isinstance(found, Refusal) else str(found))
            if isinstance(found, Refusal):
                assert 400 <= found.status < 600

    def test_an_exception_of_anybody_else_is_mapped_too(self) -> None:
        found = failure(RuntimeError(KEY), Stage.ASKING, ())
        assert isinstance(found, Refusal)
        assert (found.status, KEY in found.message) == (500, False)


@pytest.mark.parametrize("level", [logging.DEBUG])
async def test_nothing_is_logged_of_a_failing_provider(
    provider: FakeProvider,
    upstream: LiteLLMUpstream,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    level: int,
) -> None:
    caplog.set_level(level)
    for behaviour in (status(401), status(500), streams(chunk({"content": "a"}), then="cut")):
        provider.behaviour = behaviour
        for stream in (False, True):
            with contextlib.suppress(UpstreamError):
                await (await post(upstream, address(provider), stream=stream)).read()
    text = caplog.text + "".join(capfd.readouterr())
    assert KEY not in text
    assert str(provider.port) not in text.replace("asyncio", "")
