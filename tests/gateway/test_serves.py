from __future__ import annotations

import json

from gateway.requests.chat import Chat
from gateway.requests.embedding import Embedding
from gateway.requests.message import MessageRequest, TranslatedMessage
from gateway.serves import ASSUMED, EMBEDDED, TOKENIZE, Serves
from router.experts import Expert
from router.upstream import Upstream
from tests.fakes.memory import experts_file

FILE = experts_file({"silent": {}, "embeds": {"endpoints": ["embeddings"]}, "speaks": {"endpoints": ["messages"]}})
CHAT = Chat.parse(b'{"messages": [{"role": "user", "content": "hi"}]}')
MESSAGE = MessageRequest.parse(json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}).encode())
EMBEDDING = Embedding.parse(b'{"input": "hi"}')


def test_what_is_declared_stands_whatever_is_found() -> None:
    serves = Serves(FILE.experts)
    serves.found("embeds", frozenset({"chat"}))
    assert serves.of("embeds") == {"embeddings"}
    assert serves.of("silent") == ASSUMED | TOKENIZE
    serves.found("silent", frozenset({"responses"}))
    assert serves.of("silent") == {"responses"}


def test_a_message_goes_as_it_is_where_it_can_and_translated_where_it_must() -> None:
    serves = Serves(FILE.experts)
    assert serves.wire("speaks", MESSAGE) is MESSAGE
    assert isinstance(serves.wire("silent", MESSAGE), TranslatedMessage)
    assert serves.wire("embeds", MESSAGE) is None


def test_who_is_unable_is_known_anew_when_more_is_found() -> None:
    serves = Serves(FILE.experts)
    assert serves.unable(CHAT) == {"embeds", "speaks"}
    assert serves.unable(EMBEDDING) == {"silent", "speaks"}
    serves.found("silent", frozenset({"chat", "embeddings"}))
    assert serves.unable(EMBEDDING) == {"speaks"}


def test_the_embedded_engine_speaks_all_but_embeddings() -> None:
    expert = Expert(model="m", domains={"code": 1}, upstream=Upstream(embedded="smollm2"))
    assert Serves({"one": expert}).of("one") == EMBEDDED
