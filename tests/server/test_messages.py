"""Anthropic's Messages API, with its official Python client, against a live server."""

from __future__ import annotations

import asyncio
import json

import anthropic
import pydantic
import pytest

from qwen3_runtime.chat import answer_parser
from qwen3_runtime.server import messages as module
from qwen3_runtime.server.messages_request import CountTokensRequest, MessagesRequest, chat_request
from qwen3_runtime.server.pieces import TextPiece
from qwen3_runtime.server.turns import ChatTurn, Choice
from qwen3_runtime.server.usage import Usage
from tests.server.live import say
from tests.server.scripted import SHUT
from tests.server.test_openai_client import BARE_THOUGHT, CALL, MODEL, SAID_PERSON, THOUGHT

PATH = "/v1/messages"
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
    "cache_control": {"type": "ephemeral"},
}
TIME = {"name": "get_time", "input_schema": {"type": "object"}}
CALL_TIME = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
ARGUMENTS = {"city": "Zürich", "days": 2}
USER = {"role": "user", "content": "Hi"}
GREEDY = {"extra_body": {"temperature": 0}}
"""Newer clients know no sampling parameters."""


def ask(text: str, **fields) -> dict:
    return {"model": MODEL, "max_tokens": 400, "messages": say(text), **fields}


def plain(message: anthropic.types.Message) -> list[dict]:
    """The content without the ids of calls, which differ from answer to answer."""
    return [block.model_dump(exclude_none=True, exclude={"id"}) for block in message.content]


def both(client, **fields) -> anthropic.types.Message:
    """Asks for an answer whole and streamed, and holds them against each other."""
    whole = client.messages.create(**fields)
    with client.messages.stream(**fields) as stream:
        streamed = stream.get_final_message()
    assert plain(streamed) == plain(whole)
    for name in ("model", "role", "type", "stop_reason", "stop_sequence"):
        assert getattr(streamed, name) == getattr(whole, name)
    assert num_input(streamed.usage) == num_input(whole.usage)
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    return streamed


def num_input(usage: anthropic.types.Usage) -> int:
    return usage.input_tokens + usage.cache_read_input_tokens


def events(response) -> list[tuple[str, dict]]:
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = []
    for event in response.text.removesuffix("\n\n").split("\n\n"):
        name, content = event.split("\n")
        found.append((name.removeprefix("event: "), json.loads(content.removeprefix("data: "))))
    return found


# ---- answers --------------------------------------------------------------------------------


def test_an_answer(api):
    answer = both(api, **ask(f"{THOUGHT}Grüße, 世界 🙂"))
    assert answer.id.startswith("msg_")
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", MODEL)
    assert plain(answer) == [
        {"type": "thinking", "thinking": "let me see", "signature": ""},
        {"type": "text", "text": "Grüße, 世界 🙂"},
    ]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.output_tokens > 20


def test_ids_of_requests(api):
    answer = api.messages.create(**ask("Hi"), extra_headers={"X-Request-Id": "mine"})
    assert answer._request_id == "mine"


def test_the_events_of_a_stream(http):
    found = events(http.post(PATH, json=ask(f"{THOUGHT}Hi!", stream=True)))
    assert all(name == body["type"] for name, body in found)
    kinds = [name for name, _ in found]
    start, ping, *middle, delta, stop = found
    assert [start[0], ping[0], delta[0], stop[0]] == [
        "message_start",
        "ping",
        "message_delta",
        "message_stop",
    ]
    message = start[1]["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    assert message["usage"]["output_tokens"] == 0
    assert message["usage"]["input_tokens"] > 0
    assert delta[1]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert delta[1]["usage"]["output_tokens"] > 10
    opened = [body["content_block"]["type"] for name, body in middle if name.endswith("_start")]
    assert opened == ["thinking", "text"]
    assert kinds.count("content_block_stop") == 2
    said = [(b["index"], b["delta"]["type"]) for n, b in middle if n == "content_block_delta"]
    assert said == sorted(said, key=lambda each: each[0])
    assert said.count((0, "thinking_delta")) > 5
    assert said[-4:] == [(0, "signature_delta"), *[(1, "text_delta")] * 3]


def test_an_empty_answer(api):
    answer = both(api, **ask(""))
    assert (answer.content, answer.stop_reason) == ([], "end_turn")


def test_async_and_beta(server):
    async def run():
        async with anthropic.AsyncAnthropic(base_url=server.url, auth_token="none") as client:
            async with client.messages.stream(**ask("abc")) as stream:
                text = "".join([piece async for piece in stream.text_stream])
            return text, await client.beta.messages.create(**ask("def"))

    text, answer = asyncio.run(run())
    assert (text, answer.content[0].text) == ("abc", "def")


def test_models_by_anthropics_client(api):
    assert [model.id for model in api.models.list()] == ["tiny-qwen3", "qwen3"]


# ---- what a request may say -----------------------------------------------------------------


def test_tools_and_their_results(api):
    wish = {"tools": [WEATHER, TIME], "system": "Be brief."}
    answer = both(api, **ask(f"{THOUGHT}I will look.\n{CALL}\n{CALL_TIME}", **wish))
    assert answer.stop_reason == "tool_use"
    thought, text, first, second = answer.content
    assert (thought.thinking, text.text) == ("let me see", "I will look.")
    assert (first.name, first.input) == ("get_weather", ARGUMENTS)
    assert (second.name, second.input) == ("get_time", {})
    assert first.id != second.id
    results = [
        {"type": "tool_result", "tool_use_id": first.id, "content": "sunny"},
        {
            "type": "tool_result",
            "tool_use_id": second.id,
            "content": [{"type": "text", "text": "noon"}],
        },
        {"type": "text", "text": say("Sunny at noon.")[0]["content"]},
    ]
    history = [
        {"role": "user", "content": "Weather?"},
        answer.to_param(),
        {"role": "user", "content": results},
    ]
    answer = both(api, **{**ask("", **wish), "messages": history})
    assert plain(answer) == [{"type": "text", "text": "Sunny at noon."}]
    assert answer.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"type": "auto"}, ["get_weather", "get_time"]),
        ({"type": "auto", "disable_parallel_tool_use": True}, ["get_weather"]),
        ({"type": "any"}, ["get_weather", "get_time"]),
        ({"type": "any", "disable_parallel_tool_use": True}, ["get_weather"]),
        ({"type": "tool", "name": "get_weather"}, ["get_weather"]),
    ],
)
def test_a_choice_of_tools(api, choice, names):
    fields = {"tools": [WEATHER, TIME], "tool_choice": choice, **GREEDY}
    answer = both(api, **ask(f"{BARE_THOUGHT}{CALL}\n{CALL_TIME}", **fields))
    assert [block.name for block in answer.content if block.type == "tool_use"] == names
    assert answer.stop_reason == "tool_use"


def test_a_model_that_would_rather_talk_must_call(api):
    fields = {"tools": [TIME], "tool_choice": {"type": "any"}, **GREEDY}
    answer = api.messages.create(**ask(f"{BARE_THOUGHT}I would rather talk.", **fields))
    assert "get_time" in {getattr(block, "name", None) for block in answer.content}


def test_no_tools_where_none_is_wanted(api):
    fields = {"tools": [WEATHER], "tool_choice": {"type": "none"}}
    answer = both(api, **ask(CALL, **fields))
    assert [block.type for block in answer.content] == ["text"]
    count = api.messages.count_tokens(model=MODEL, messages=[USER]).input_tokens
    assert count == api.messages.count_tokens(model=MODEL, messages=[USER], **fields).input_tokens


def test_a_call_that_is_cut_off(api):
    answer = both(api, **ask(CALL, tools=[WEATHER], max_tokens=70))
    assert answer.stop_reason == "max_tokens"
    (block,) = answer.content
    assert block.name == "get_weather"


def test_thinking(api):
    def count(**fields) -> int:
        return api.messages.count_tokens(model=MODEL, messages=[USER], **fields).input_tokens

    # One token for each marker and each of the four line ends.
    shut = SHUT.count("think>") + SHUT.count("\n")
    assert count(thinking={"type": "disabled"}) == count() + shut
    assert count(thinking={"type": "enabled", "budget_tokens": 1024}) == count()
    assert count(thinking={"type": "adaptive"}) == count()
    answer = both(api, **ask("Hi", thinking={"type": "disabled"}))
    assert plain(answer) == [{"type": "text", "text": "Hi"}]


def test_what_is_said_of_thinking_goes_before_the_servers_own(serve):
    running = serve(template_arguments={"enable_thinking": False})
    with anthropic.Anthropic(base_url=running.url, api_key="none") as client:
        unsaid, enabled, adaptive = (
            client.messages.count_tokens(model=MODEL, messages=[USER], **fields).input_tokens
            for fields in (
                {},
                {"thinking": {"type": "enabled", "budget_tokens": 1024}},
                {"thinking": {"type": "adaptive"}},
            )
        )
    assert enabled < unsaid == adaptive


def test_stop_sequences(api):
    answer = both(api, **ask("one STOP two", stop_sequences=["two", "STOP"]))
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "STOP")
    assert plain(answer) == [{"type": "text", "text": "one "}]
    answer = both(api, **ask("one", stop_sequences=["two"]))
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)


def test_max_tokens(api):
    answer = both(api, **ask("abcdef", max_tokens=3))
    assert (answer.stop_reason, answer.content[0].text) == ("max_tokens", "abc")
    assert answer.usage.output_tokens == 3
    # More than there is room for; the api takes so many in a stream only.
    with api.messages.stream(**ask("abc", max_tokens=32_000)) as stream:
        assert stream.get_final_message().stop_reason == "end_turn"


def test_a_parsed_answer(api):
    class Person(pydantic.BaseModel):
        name: str
        age: int

    answer = api.messages.parse(**ask(BARE_THOUGHT + SAID_PERSON), output_format=Person)
    assert answer.parsed_output == Person(name="Ann", age=3)


def test_counts(api):
    fields = {"system": "Be brief.", "tools": [WEATHER], "messages": say("Hi")}
    counted = api.messages.count_tokens(model=MODEL, **fields).input_tokens
    assert counted > api.messages.count_tokens(model=MODEL, messages=say("Hi")).input_tokens
    answer = both(api, **{**ask("Hi"), **fields})
    assert counted == num_input(answer.usage)


def test_a_prefix_is_found_again(api):
    """Though Claude Code puts a line before the system prompt that is never the same."""

    def usage(code: str, stream: bool) -> anthropic.types.Usage:
        line = f"x-anthropic-billing-header: cc_version=2.1; cch={code};"
        system = [{"type": "text", "text": text} for text in (line, "A long prompt. " * 20)]
        fields = ask("Hi", system=system)
        if not stream:
            return api.messages.create(**fields).usage
        with api.messages.stream(**fields) as streamed:
            return streamed.get_final_message().usage

    first, whole, streamed = usage("aaaaa", True), usage("bbbbb", False), usage("ccccc", True)
    assert first.cache_read_input_tokens < 0.1 * num_input(first)
    for again in (whole, streamed):
        assert num_input(again) == num_input(first)
        assert again.cache_read_input_tokens > 0.9 * num_input(first)


# ---- the translation by itself --------------------------------------------------------------


def conversation(messages: list[dict], **fields) -> list[dict]:
    return chat_request(CountTokensRequest(messages=messages, **fields)).messages


def test_blocks_as_messages():
    call = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}
    taken = conversation(
        [
            {"role": "user", "content": [{"type": "text", "text": text} for text in "ab"]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "text", "text": "so", "citations": None},
                    call,
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "c", "cache_control": {"type": "ephemeral"}},
                    {"type": "tool_result", "tool_use_id": "1"},
                    {"type": "tool_result", "tool_use_id": "2", "content": "d", "is_error": True},
                    {"type": "text", "text": "e"},
                ],
            },
            {"role": "system", "content": [{"type": "text", "text": "f"}]},
        ],
        system=[{"type": "text", "text": "g"}, {"type": "text", "text": "h"}],
    )
    function = {"name": "f", "arguments": {"a": 1}}
    assert taken == [
        {"role": "system", "content": "gh"},
        {"role": "user", "content": "ab"},
        {
            "role": "assistant",
            "content": "so",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        },
        {"role": "user", "content": "c"},
        {"role": "tool", "tool_call_id": "1", "content": ""},
        {"role": "tool", "tool_call_id": "2", "content": "Error: d"},
        {"role": "user", "content": "e"},
        {"role": "system", "content": "f"},
    ]


def test_a_tool_as_a_function():
    tool = {**WEATHER, "strict": True, "type": "custom"}
    body = CountTokensRequest(messages=[USER], tools=[tool, TIME])
    assert chat_request(body).tools == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Weather of a city",
                "parameters": WEATHER["input_schema"],
                "strict": True,
            },
        },
        {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}},
    ]


def test_sampling():
    fields = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.25, "top_k": 7}
    body = MessagesRequest(messages=[USER], stop_sequences=["a", "b"], **fields)
    assert chat_request(body).model_dump(exclude_none=True, exclude_defaults=True) == {
        "messages": [USER],
        "stop": ["a", "b"],
        **fields,
    }
    body = MessagesRequest(messages=[USER], max_tokens=9, stop_sequences=[])
    assert chat_request(body).stop is None


@pytest.mark.parametrize("is_streamed", [True, False])
def test_blocks_that_come_in_one_piece(is_streamed):
    """The end of a call, a text after it and the next call, as a draft model may bring them."""
    parser = answer_parser(reasoning_format="think", tool_format="hermes", has_tools=True)
    turn = ChatTurn(MODEL, [Choice(parser)], Usage(5), None)
    message = module._Message(turn)
    first, second = f"{THOUGHT}Well.\n{CALL[:60]}", f"{CALL[60:]}\nAnd:\n{CALL_TIME}"
    pieces = [TextPiece(text=first), TextPiece(text=second, finish_reason="stop")]
    kinds = ["thinking", "text", "tool_use", "text", "tool_use"]
    if not is_streamed:
        for piece in pieces:
            message.add(0, piece)
        content = message.body()["content"]
        assert [block["type"] for block in content] == kinds
        assert content[2]["input"] == ARGUMENTS
        assert content[3]["text"] == "And:"
        return
    said = [event for piece in pieces for event in message.chunks(0, piece)]
    said += message.last_chunks()
    starts = [event for event in said if event["type"] == "content_block_start"]
    assert [event["content_block"]["type"] for event in starts] == kinds
    open_index = None
    for event in said:
        match event["type"]:
            case "content_block_start":
                assert open_index is None
                open_index = event["index"]
            case "content_block_delta":
                assert event["index"] == open_index
            case "content_block_stop":
                assert event["index"] == open_index
                open_index = None
    arguments = [e["delta"]["partial_json"] for e in said if e.get("index") == 2 and "delta" in e]
    assert json.loads("".join(arguments)) == ARGUMENTS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1e999, "b": NaN}', {"a": None, "b": None}),
        ('{"a": [' + "[" * 100_000, {}),
        ("[1]", {}),
        ("", {}),
    ],
)
def test_arguments_that_are_no_json(text, value):
    assert module._object(text) == value
