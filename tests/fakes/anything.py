"""An expert at every endpoint that takes whatever it is sent and can do all that is asked: what fails is the gateway's doing."""

from __future__ import annotations

import json

from tests.fakes.raw import END, Call, Then, piece, stream_head, whole

EXPERTS = """version: 1
experts:
  one:
    model: model-one
    domains: {{code: 0.5, math: 0.5, bio: 0.5, general: 0.5}}
    upstream: {{vllm: [{url}]}}
    endpoints: [chat, completions, embeddings, responses, messages]
    capabilities: [tools, json_schema, logprobs, n, vision, audio, state]
"""
STREAMED = {
    "/v1/chat/completions": {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]},
    "/v1/completions": {"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]},
    "/v1/responses": {"type": "response.completed", "response": {}},
    "/v1/messages": {"type": "message_stop"},
}


async def takes_anything(call: Call) -> Then:
    if call.body.get("stream") is True and call.path in STREAMED:
        event = b"data: " + json.dumps(STREAMED[call.path]).encode() + b"\n\n"
        await call.send(stream_head() + piece(event) + END)
    else:
        await call.send(whole(b'{"input_tokens": 1}'))
    return "keep"
