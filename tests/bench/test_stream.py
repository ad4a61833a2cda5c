"""Bytes with times become events with times, however they were cut."""

from __future__ import annotations

import asyncio

import pytest

from qwen3_codegen.bench.stream import Address, Exchange, StreamError, exchange

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(payload), payload)


STREAM = HEAD + chunk(b"data: one\n\n") + chunk(b": still here\n\ndata: t") + chunk(b"wo\n\n")
END = b"0\r\n\r\n"


def received(*pieces: bytes, is_whole: bool = True) -> Exchange:
    return Exchange(0.0, tuple(enumerate(map(bytes, pieces), 1)), is_whole)


@pytest.mark.parametrize("size", [1, 2, 7, 30, 1000])
def test_however_it_was_cut(size):
    whole = STREAM + END
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    answer = received(*pieces)
    assert answer.status == 200
    assert [text for _, text in answer.events()] == ["one", "two"]
    ends = [STREAM.index(last) + len(last) - 1 for last in (b"one\n\n", b"wo\n\n")]
    assert [seconds for seconds, _ in answer.events()] == [end // size + 1 for end in ends]


def test_what_ends_too_early():
    assert received(STREAM, is_whole=False).events()[-1][1] == "two"  # we hung up
    with pytest.raises(StreamError, match="ended before the answer did"):
        received(STREAM).events()
    with pytest.raises(StreamError, match="within an event"):
        received(HEAD + chunk(b"data: half") + END).events()
    with pytest.raises(StreamError, match="without an answer"):
        _ = received(b"").status


def test_a_body_without_chunks():
    answer = received(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r", b"\n{}")
    assert (answer.status, answer.body) == (404, b"{}")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000/v1/", Address("localhost", 8000, "", False)),
        ("https://a.example/models/v1", Address("a.example", 443, "/models", True)),
        ("http://[::1]:80", Address("::1", 80, "", False)),
    ],
)
def test_urls(url, expected):
    assert Address.parse(url) == expected


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "http://"])
def test_what_is_no_url(url):
    with pytest.raises(ValueError, match="http"):
        Address.parse(url)


def test_a_request_as_a_server_sees_it():
    async def talk():
        seen = []

        async def serve(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            seen.append(head + await reader.readexactly(length))
            writer.write(STREAM + END)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            address = Address("127.0.0.1", port, "/base", False, "secret")
            answer = await exchange(address, "POST", "/v1/completions", {"a": 1})
        with pytest.raises(StreamError, match="no answer from"):
            await exchange(address, "GET", "/health")
        return seen[0], answer

    seen, answer = asyncio.run(talk())
    assert seen.startswith(b"POST /base/v1/completions HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret\r\n" in seen
    assert seen.endswith(b'\r\n\r\n{"a": 1}')
    assert [text for _, text in answer.events()] == ["one", "two"]
    assert all(seconds > answer.started for seconds, _ in answer.events())
