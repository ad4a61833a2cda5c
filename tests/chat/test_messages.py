"""What clients send as messages, and what is no message."""

from __future__ import annotations

import pytest

from qwen3_runtime.chat import template_messages
from qwen3_runtime.errors import RequestError


def user(content="hi", **fields):
    return {"role": "user", "content": content, **fields}


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def test_plain_messages_stay():
    messages = [{"role": "system", "content": "Be brief."}, user(), user("more", name="Ann")]
    assert template_messages(messages) == messages


def test_parts_become_one_text():
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"]
    assert template_messages([user(parts)]) == [user("abc")]
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    assert template_messages([user(), refusal])[1]["content"] == "no"


def test_developer_is_system_and_several_at_the_head_are_one():
    messages = [
        {"role": "developer", "content": "One."},
        {"role": "system", "content": [{"type": "text", "text": "Two."}]},
        user(),
        {"role": "system", "content": "Later."},
    ]
    assert template_messages(messages) == [
        {"role": "system", "content": "One.\n\nTwo."},
        user(),
        {"role": "system", "content": "Later."},
    ]


def test_a_history_of_calls():
    messages = [
        user(),
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    taken = template_messages(messages)
    assert taken[1] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
        ],
    }
    assert taken[2] == messages[2]


def test_a_history_of_functions_as_there_were_before_tools():
    call = {"name": "f", "arguments": '{"a": 1}'}
    asked, answered = template_messages(
        [
            {"role": "assistant", "content": None, "function_call": call},
            {"role": "function", "name": "f", "content": "2"},
        ]
    )
    assert asked["tool_calls"] == [
        {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    ]
    assert (answered["role"], answered["content"]) == ("tool", "2")


def test_an_assistant_may_say_nothing():
    assert template_messages([user(), {"role": "assistant", "content": None}])[1]["content"] == ""


def without(name):
    return {"id": "c1", "function": {k: v for k, v in CALL["function"].items() if k != name}}


@pytest.mark.parametrize(
    ("messages", "where"),
    [
        ([], "messages"), (None, "messages"), ("hi", "messages"), ({"role": "user"}, "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "hi"}], "messages[0].role"),
        ([user(), {"role": "robot", "content": ""}], "messages[1].role"),
        ([user(role=5)], "messages[0].role"), ([user(role=[])], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"), ([user(None)], "messages[0].content"),
        ([user(5)], "messages[0].content"),
        ([user([{"type": "image_url"}])], "messages[0].content[0]"),
        ([user(["a", {"type": "text"}])], "messages[0].content[1].text"),
        ([user(name=5)], "messages[0].name"),
        ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
        ([{"role": "function", "content": "x"}], "messages[0].tool_call_id"),
        ([{"role": "assistant", "function_call": "x"}], "messages[0].tool_calls[0].function"),
        ([{"role": "assistant", "tool_calls": "x"}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": ["x"]}], "messages[0].tool_calls[0].function"),
        ([{"role": "assistant", "tool_calls": [without("name")]}],
         "messages[0].tool_calls[0].function.name"),
        ([{"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": "{oops"}}]}],
         "messages[0].tool_calls[0].function.arguments"),
        ([{"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": "[1]"}}]}],
         "messages[0].tool_calls[0].function.arguments"),
        ([{"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": '{"a": ' + "[" * 100_000}}]}],
         "messages[0].tool_calls[0].function.arguments"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(messages, where):
    with pytest.raises(RequestError) as caught:
        template_messages(messages)
    assert caught.value.where == where
