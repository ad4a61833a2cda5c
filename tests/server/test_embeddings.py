"""Vectors: every form of input, both encodings, and a server that makes none."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import httpx
import numpy as np
import pytest

from tests.server.live import say
from tests.server.scripted import counts
from tests.server.test_bad_input import CHAT, error_of
from tests.server.test_openai_client import MODEL

PATH = "/v1/embeddings"


@pytest.mark.parametrize("encoding", [None, "float"])
def test_texts_and_token_ids(client, encoding):
    options = {} if encoding is None else {"encoding_format": encoding}
    ids = [ord(char) - 33 for char in "abca"]
    for given in ("abca", ids, ["abca", "b"], [ids, [1]]):
        answer = client.embeddings.create(model=MODEL, input=given, **options)
        assert [entry.index for entry in answer.data] == list(range(len(answer.data)))
        assert len(answer.data) == (
            2 if isinstance(given[0], list | str) and given != "abca" else 1
        )
        np.testing.assert_allclose(answer.data[0].embedding, counts(ids), rtol=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 5


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input[0]"),
        ({"input": [9999]}, "input[0]"),
        ({"input": "x", "dimensions": 3}, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "x" * 3000}, "input"),
    ],
)
def test_what_cannot_be_embedded(http, fields, param):
    assert error_of(http.post(PATH, json=fields), 400)["param"] == param


def test_a_server_without_names_its_flag(serve):
    with serve(engine={"embeds": False}).http() as http:
        error = error_of(http.post(PATH, json={"input": "x"}), 400)
        assert "--enable-embeddings" in error["message"]


def test_streams_go_on_while_vectors_are_made(serve):
    running = serve(engine={"step_seconds": 0.02, "embed_seconds": 2.0})
    with running.http() as http:
        asking = threading.Thread(target=http.post, args=(PATH,), kwargs={"json": {"input": "x"}})
        body = {"messages": say("on and on " * 12), "stream": True}
        times = []
        with running.http() as other, other.stream("POST", CHAT, json=body) as response:
            for line in response.iter_lines():
                if line and not times:
                    asking.start()
                times.append(time.monotonic())
        was_asking = asking.is_alive()
        asking.join()
    assert was_asking or times[-1] - times[0] > 2.0
    assert max(end - start for start, end in pairwise(times)) < 1.0


def test_vectors_nobody_waits_for_are_not_made(serve):
    running = serve(engine={"embed_seconds": 0.5})
    with running.http() as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post(PATH, json={"input": ["x"] * 60}, timeout=1.0)
        started = time.monotonic()
        assert http.post(PATH, json={"input": "y"}).status_code == 200
        assert time.monotonic() - started < 15
