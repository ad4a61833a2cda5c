"""Answers are split alike however they come, and no marker is ever shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_runtime.chat import AnswerDelta, answer_parser

CALL = (
    '<tool_call>\n{"name": "get_weather", "arguments": '
    '{"city": "Paris", "days": [1, {"x": 2}]}}\n</tool_call>'
)
OTHER = '<tool_call>{"arguments": {"a": 1}, "name": "later"}</tool_call>'


def parser(prompt_text: str = "<|im_start|>assistant\n", has_tools: bool = True, **options):
    return answer_parser(
        reasoning_format="think",
        tool_format="hermes",
        prompt_text=prompt_text,
        has_tools=has_tools,
        **options,
    )


def split(text: str, cuts=(), **options) -> AnswerDelta:
    """Feeds a text cut at some places."""
    own = parser(**options)
    whole = AnswerDelta()
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        whole += own.add(text[start:end])
    whole += own.finish()
    assert own.has_tool_calls == bool(whole.tool_calls)
    return whole


def calls(delta: AnswerDelta) -> list[tuple[str, str]]:
    """Names and joined arguments."""
    found: dict[int, tuple[str, str]] = {}
    for call in delta.tool_calls:
        if call.index not in found:
            assert call.id.startswith("call_")
            assert call.name
            found[call.index] = (call.name, call.arguments)
        else:
            assert call.id is call.name is None
            name, arguments = found[call.index]
            found[call.index] = (name, arguments + call.arguments)
    assert list(found) == list(range(len(found)))
    return list(found.values())


TEXTS = [
    "plain answer",
    "  spaced answer\n",
    "<think>\nlet me see\n\nyes\n</think>\n\nThe answer.",
    "\n<think>\n\n</think>\n\nThe answer.",
    "<think>never ends",
    "no thought </think> after all",
    "a < b and <thin air",
    f"I look it up.\n{CALL}",
    f"<think>hm</think>\n\n{CALL}\n{OTHER}\n",
    f"{CALL} and then",
    f"{CALL}\n\n",
    f"{CALL}\n <tool",
    f"a \n {CALL}  b  {CALL}  ",
    "<tool_call>no json at all</tool_call>",
    '<tool_call>{"name": "f", "arguments": {"text": "a </tool_call> b \\" }"}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": {"text": "two\nlines"}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
    '<tool_call>{"name": "f"}</tool_call>',
    '<tool_call>{"name": "f", "arguments": {"a": ',
    '<tool_call>{"name": "f", "argu',
]


@pytest.mark.parametrize("text", TEXTS)
@given(data=st.data())
def test_the_cuts_do_not_matter(text, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    whole, pieces = split(text), split(text, cuts)
    assert (pieces.content, pieces.reasoning) == (whole.content, whole.reasoning)
    assert calls(pieces) == calls(whole)


@pytest.mark.parametrize("text", TEXTS)
def test_no_marker_is_shown(text):
    whole = split(text)
    for marker in ("<think>", "</think>", "<tool_call>", "</tool_call>"):
        assert marker not in whole.content
        assert marker not in whole.reasoning


def test_thought_and_answer():
    whole = split("<think>\nlet me see\n\nyes\n</think>\n\nThe answer.\n")
    assert (whole.reasoning, whole.content) == ("let me see\n\nyes", "The answer.\n")
    assert split("<think>\n\n</think>\n\nHi") == AnswerDelta(content="Hi")
    assert split("<think>cut off\n") == AnswerDelta(reasoning="cut off")
    assert split("  just text") == AnswerDelta(content="  just text")


def test_a_thought_that_the_prompt_opened():
    prompt = "<|im_start|>assistant\n<think>\n"
    whole = split("I see.\n</think>\n\nYes.", prompt_text=prompt)
    assert (whole.reasoning, whole.content) == ("I see.", "Yes.")
    assert split("still thinking", prompt_text=prompt) == AnswerDelta(reasoning="still thinking")


def test_a_thought_that_the_prompt_closed():
    prompt = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert split("Yes.", prompt_text=prompt) == AnswerDelta(content="Yes.")
    said_before = "<|im_start|>user\nwhat is <think>?<|im_end|>\n<|im_start|>assistant\n"
    assert split("A tag.", prompt_text=said_before) == AnswerDelta(content="A tag.")


def test_thoughts_stream():
    own = parser()
    assert own.add("<think>\nlet me") == AnswerDelta(reasoning="let me")
    assert own.add(" see ") == AnswerDelta(reasoning=" see")
    assert own.add("</th") == AnswerDelta()
    assert own.add("ink>\n\nYes") == AnswerDelta(content="Yes")
    assert own.add(", so") == AnswerDelta(content=", so")


def test_calls():
    whole = split(f"I look it up.\n{CALL}\n{OTHER}")
    assert whole.content == "I look it up."
    names, arguments = zip(*calls(whole), strict=True)
    assert names == ("get_weather", "later")
    assert [json.loads(text) for text in arguments] == [
        {"city": "Paris", "days": [1, {"x": 2}]},
        {"a": 1},
    ]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_call_begun_anew(size):
    text = f"<tool_call>no, <tool_call>\n{OTHER} <tool_call><tool_call>nothing</tool_call>"
    found = split(text, range(size, len(text), size))
    assert found.content == "no,nothing"
    assert calls(found) == calls(split(OTHER))


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("call", [CALL, OTHER])
def test_one_call_alone(size, call):
    text = f"I look it up.\n{call}\n{OTHER} and so on <tool_call>"
    found = split(text, range(size, len(text), size), only_one_call=True)
    assert found.content == "I look it up."
    assert calls(found) == calls(split(call))


def test_arguments_stream():
    own = parser()
    own.add('<tool_call>{"name": "f", "arguments": ')
    pieces = [own.add(piece) for piece in ('{"a"', ': "b', 'c"}', "}</tool_call>")]
    texts = ["".join(call.arguments for call in piece.tool_calls) for piece in pieces]
    assert texts == ['{"a"', ': "b', 'c"}', ""]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"name": "f", "arguments": {"t": "a </tool_call> \\" }"}}', {"t": 'a </tool_call> " }'}),
        ('{"name": "f", "arguments": {"text": "two\nlines"}}', {"text": "two\nlines"}),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', {"a": 1}),
        ('{"name": "f", "arguments": {}}', {}),
        ('{"name": "f", "arguments": null}', {}),
        ('{"name": "f"}', {}),
    ],
)  # fmt: skip
def test_arguments_are_always_json(text, arguments):
    ((name, found),) = calls(split(f"<tool_call>{text}</tool_call>"))
    assert (name, json.loads(found)) == ("f", arguments)


def test_what_is_no_call_is_content():
    assert split("<tool_call>no json at all</tool_call>").content == "no json at all"
    assert split("<tool_call>[1]</tool_call>").content == "[1]"
    deep = "[" * 5000
    assert split(f"<tool_call>{deep}</tool_call>").content == deep


def test_without_tools_nothing_is_taken_for_a_call():
    assert split(CALL, has_tools=False).content == CALL


def test_without_formats_text_is_text():
    own = answer_parser(reasoning_format=None, tool_format=None, has_tools=True)
    text = f"<think>a</think>{CALL}"
    assert own.add(text) + own.finish() == AnswerDelta(content=text)
