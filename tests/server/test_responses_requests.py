"""What a request for a response may say: items that become messages, and what is refused."""

from __future__ import annotations

import openai
import pytest

from qwen3_runtime.server.protocol import ResponsesRequest
from qwen3_runtime.server.responses_request import response_wish
from tests.server.test_bad_input import error_of
from tests.server.test_openai_client import MODEL, WEATHER
from tests.server.test_responses import RESPONSES, TOOL, text_part

# ---- the conversation -----------------------------------------------------------------------


def call_item(call_id: str = "c1") -> dict:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": '{"a": 1}'}


def thought_item(text: str) -> dict:
    return {"type": "reasoning", "summary": [], "content": [text_part(text, "reasoning_text")]}


def called(call_id: str = "c1") -> dict:
    function = {"name": "f", "arguments": '{"a": 1}'}
    return {"id": call_id, "type": "function", "function": function}


CONVERSATIONS = {
    "a text": ("Hi", [{"role": "user", "content": "Hi"}]),
    "parts": (
        [{"role": "user", "content": [text_part("a"), text_part("b")]}],
        [{"role": "user", "content": "ab"}],
    ),
    "one turn is one message": (
        [
            {"role": "user", "content": "Hi"},
            thought_item("hm"),
            {
                "type": "message",
                "role": "assistant",
                "content": [text_part("I look", "output_text")],
            },
            call_item("c1"),
            call_item("c2"),
            {"type": "function_call_output", "call_id": "c1", "output": "x"},
            {"type": "function_call_output", "call_id": "c2", "output": [text_part("y")]},
            thought_item("so"),
            call_item("c3"),
        ],
        [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": "I look",
                "reasoning_content": "hm",
                "tool_calls": [called("c1"), called("c2")],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "x"},
            {"role": "tool", "tool_call_id": "c2", "content": "y"},
            {
                "role": "assistant",
                "content": "",
                "reasoning_content": "so",
                "tool_calls": [called("c3")],
            },
        ],
    ),
    "messages stay apart": (
        [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
    ),
    "a summary for a thought, a refusal for a text": (
        [
            {"type": "reasoning", "summary": [text_part("hm", "summary_text")]},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        ],
        [{"role": "assistant", "content": "no", "reasoning_content": "hm"}],
    ),
    "a thought that nobody can read": (
        [{"type": "reasoning", "summary": [], "encrypted_content": "x"}, call_item()],
        [{"role": "assistant", "content": "", "tool_calls": [called()]}],
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_items_become_messages(name):
    given, messages = CONVERSATIONS[name]
    assert response_wish(ResponsesRequest(input=given)).chat.messages == messages


def test_instructions_come_first():
    given = [{"role": "developer", "content": "b"}, {"role": "user", "content": "c"}]
    wish = response_wish(ResponsesRequest(input=given, instructions="a"))
    assert [message["content"] for message in wish.chat.messages] == ["a", "b", "c"]


# ---- refusals -------------------------------------------------------------------------------


def asked(**fields) -> dict:
    return {"input": "Hi", **fields}


def items(*given) -> dict:
    return {"input": list(given)}


def content(*parts) -> dict:
    return items({"role": "user", "content": list(parts)})


WRONG = {
    "no input": ({}, "input"),
    "empty input": ({"input": []}, "input"),
    "an earlier response": (asked(previous_response_id="resp_1"), "previous_response_id"),
    "a conversation": (asked(conversation="conv_1"), "conversation"),
    "a stored prompt": (asked(prompt={"id": "pmpt_1"}), "prompt"),
    "in the background": (asked(background=True), "background"),
    "a reference": (items({"type": "item_reference", "id": "msg_1"}), "input[0]"),
    "an item of a built-in tool": (items({"type": "computer_call"}), "input[0].type"),
    "an item without a type": (items({"content": "x"}), "input[0].type"),
    "a type that is a list": (items({"type": ["message"]}), "input[0].type"),
    "a role": (items({"role": "tool", "content": "x"}), "input[0].role"),
    "no content": (items({"role": "user"}), "input[0].content"),
    "an image": (
        content(text_part("x"), {"type": "input_image", "image_url": "data:"}),
        "input[0].content[1]",
    ),
    "a part that is a number": (content(3), "input[0].content[0]"),
    "a part without text": (content({"type": "input_text"}), "input[0].content[0].text"),
    "arguments that are no JSON": (items({**call_item(), "arguments": "{"}), "input[0].arguments"),
    "arguments that are a list": (items({**call_item(), "arguments": "[]"}), "input[0].arguments"),
    "a call without an id": (items({**call_item(), "call_id": None}), "input[0].call_id"),
    "a call without a name": (items({**call_item(), "name": 3}), "input[0].name"),
    "an output without a call": (
        items({"type": "function_call_output", "output": "x"}),
        "input[0].call_id",
    ),
    "a call without an output": (
        items({"type": "function_call_output", "call_id": "c"}),
        "input[0].output",
    ),
    "a built-in tool": (asked(tools=[{"type": "file_search"}]), "tools[0].type"),
    "a tool of free text": (asked(tools=[{"type": "custom", "name": "x"}]), "tools[0].type"),
    "a tool without a name": (asked(tools=[{"type": "function"}]), "tools[0].name"),
    "a tool as in chats": (asked(tools=[WEATHER]), "tools[0].name"),
    "two of a name": (asked(tools=[TOOL, TOOL]), "tools[1].name"),
    "parameters": (
        asked(tools=[{"type": "function", "name": "f", "parameters": 3}]),
        "tools[0].parameters",
    ),
    "a namespace of nothing": (asked(tools=[{"type": "namespace", "name": "n"}]), "tools[0].tools"),
    "a namespace of more than functions": (
        asked(tools=[{"type": "namespace", "name": "n", "tools": [{"type": "custom"}]}]),
        "tools[0].tools[0].type",
    ),
    "a choice of no tool": (asked(tool_choice="required"), "tool_choice"),
    "a choice of a built-in tool": (
        asked(tools=[TOOL], tool_choice={"type": "mcp"}),
        "tool_choice.type",
    ),
    "a choice of another tool": (
        asked(tools=[TOOL], tool_choice={"type": "function", "name": "g"}),
        "tool_choice",
    ),
    "a format": (asked(text={"format": {"type": "xml"}}), "text.format.type"),
    "a format that is a list": (asked(text={"format": []}), "text.format.type"),
    "a format of a list": (asked(text={"format": {"type": []}}), "text.format.type"),
    "no schema": (asked(text={"format": {"type": "json_schema"}}), "text.format.schema"),
    "no tokens": (asked(max_output_tokens=0), "max_output_tokens"),
    "a temperature": (asked(temperature=-1), "temperature"),
    "a high temperature": (asked(temperature=5), "temperature"),
    "too many logprobs": (asked(top_logprobs=50), "top_logprobs"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(http, name, stream):
    body, param = WRONG[name]
    error = error_of(http.post(RESPONSES, json={**body, "stream": stream}), 400)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")


def test_refusals_say_why(client):
    with pytest.raises(openai.BadRequestError, match="nothing is stored here") as caught:
        client.responses.create(model=MODEL, input="Hi", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.create(model="gpt-5", input="Hi")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="maximum context") as long:
        client.responses.create(model=MODEL, input="x" * 3000)
    assert long.value.code == "context_length_exceeded"


@pytest.mark.parametrize("stream", ["false", "true"])
@pytest.mark.parametrize(
    "field",
    [
        '"text": {"verbosity": NaN}',
        '"tools": [{"type": "function", "name": "f", "parameters": {"maximum": Infinity}}]',
    ],
)
def test_numbers_that_json_has_not(http, field, stream):
    sent = http.post(
        RESPONSES,
        content=f'{{"input": "Hi", "stream": {stream}, {field}}}',
        headers={"Content-Type": "application/json"},
    )
    assert "none that JSON has" in error_of(sent, 400)["message"]
