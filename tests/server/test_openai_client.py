"""What the official Python client needs, against a live server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap

import openai
import pydantic
import pytest

from tests.docs.markdown import read_document
from tests.server.live import ROOT, ServerProcess, say

MODEL = "tiny-qwen3"
THOUGHT = "<think>\nlet me see\n</think>\n\n"
BARE_THOUGHT = THOUGHT.rstrip()
"""Before what follows a grammar, which begins with the form itself."""
CALL = (
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}}\n</tool_call>'
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "days": {"type": "integer"},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
OTHER = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}


def test_the_first_model_serves(client):
    models = client.models.list()
    assert [model.id for model in models] == ["tiny-qwen3", "qwen3"]
    assert models.data[0].model_dump()["max_model_len"] == 2048
    answer = client.chat.completions.create(model=models.data[0].id, messages=say("Hi"))
    assert answer.model == models.data[0].id
    assert client.models.retrieve("qwen3").id == "qwen3"


def test_the_python_to_paste_prints_the_answer_alone(server, client):
    found = server.wait_for(r"(?ms)^  from openai import OpenAI\n.*?^  print\([^\n]*\)\n")
    program = textwrap.dedent(found[0])
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program], capture_output=True, text=True, timeout=120
    )
    hello = [{"role": "user", "content": "Hello"}]
    answer = client.chat.completions.create(model=MODEL, messages=hello)
    assert done.stdout == f"{answer.choices[0].message.content}\n", done.stderr


def test_a_whole_answer(client):
    answer = client.chat.completions.create(model=MODEL, messages=say(f"{THOUGHT}Grüße, 世界 🙂"))
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == "Grüße, 世界 🙂"
    assert choice.message.reasoning_content == choice.message.reasoning == "let me see"
    assert choice.finish_reason == "stop"
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert answer._request_id


def test_a_stream(client):
    text = f"{THOUGHT}Grüße, 世界 🙂"
    stream = client.chat.completions.create(
        model=MODEL, messages=say(text), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    *chunks, last = chunks
    assert last.choices == []
    assert last.usage.completion_tokens > 20
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    deltas = [chunk.choices[0].delta for chunk in chunks]
    contents = [delta.content or "" for delta in deltas]
    assert "".join(contents) == "Grüße, 世界 🙂"
    assert len([content for content in contents if content]) > 10
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == "let me see"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]


def test_no_usage_unasked(client):
    chunks = list(client.chat.completions.create(model=MODEL, messages=say("Hi"), stream=True))
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)


def test_async_clients_beside_each_other(server: ServerProcess):
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x") as client:

            async def one(index: int) -> str:
                stream = await client.chat.completions.create(
                    model=MODEL, messages=say(f"answer {index}"), stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(one(index) for index in range(20)))

    assert asyncio.run(ask()) == [f"answer {index}" for index in range(20)]


# ---- tools ----------------------------------------------------------------------------------


def test_one_call_where_only_one_is_wanted(client):
    wish = {"model": MODEL, "tools": [WEATHER], "parallel_tool_calls": False}
    messages = say(f"{CALL}\n{CALL}")
    answer = client.chat.completions.create(messages=messages, **wish)
    assert len(answer.choices[0].message.tool_calls) == 1
    assert answer.choices[0].finish_reason == "tool_calls"
    chunks = client.chat.completions.create(messages=messages, stream=True, **wish)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert {call.index for call in calls} == {0}


def test_a_tool_call_and_its_answer(client):
    messages = say(f"{THOUGHT}I will look.\n{CALL}\n{CALL}")
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I will look."
    first, second = choice.message.tool_calls
    assert first.type == "function"
    assert first.id != second.id
    assert first.function.name == "get_weather"
    assert json.loads(first.function.arguments) == {"city": "Zürich", "days": 2}
    history = [
        {"role": "user", "content": "Weather?"},
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": first.id, "content": "sunny"},
        {"role": "tool", "tool_call_id": second.id, "content": [{"type": "text", "text": "dry"}]},
        *say("Sunny and dry."),
    ]
    answer = client.chat.completions.create(model=MODEL, messages=history, tools=[WEATHER])
    assert answer.choices[0].message.content == "Sunny and dry."
    assert answer.choices[0].finish_reason == "stop"


def test_a_streamed_tool_call(client):
    stream = client.chat.completions.create(
        model=MODEL, messages=say(f"{CALL}\n{CALL}"), tools=[WEATHER], stream=True
    )
    calls: dict[int, dict[str, str]] = {}
    for chunk in stream:
        (choice,) = chunk.choices
        assert "tool_call" not in (choice.delta.content or "")
        for part in choice.delta.tool_calls or []:
            if part.index not in calls:
                assert part.type == "function"
                calls[part.index] = {"id": part.id, "name": part.function.name, "arguments": ""}
            else:
                assert part.id is None
                assert part.function.name is None
            calls[part.index]["arguments"] += part.function.arguments
    assert choice.finish_reason == "tool_calls"
    assert sorted(calls) == [0, 1]
    for call in calls.values():
        assert call["name"] == "get_weather"
        assert json.loads(call["arguments"]) == {"city": "Zürich", "days": 2}


@pytest.mark.parametrize(
    ("choice", "parallel", "names"),
    [
        ("required", None, {"get_weather", "get_time"}),
        ("required", False, {"get_weather", "get_time"}),
        ({"type": "function", "function": {"name": "get_time"}}, None, {"get_time"}),
    ],
)
def test_a_call_that_must_come(client, choice, parallel, names):
    said = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    options = {} if parallel is None else {"parallel_tool_calls": parallel}
    answer = client.chat.completions.create(
        model=MODEL,
        messages=say(f"{BARE_THOUGHT}{said}\n{said}"),
        tools=[WEATHER, OTHER],
        tool_choice=choice,
        temperature=0,
        max_tokens=300,
        **options,
    )
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert not message.content
    assert message.reasoning_content == "let me see"
    assert {call.function.name for call in message.tool_calls} <= names
    is_several = choice == "required" and parallel is None
    assert len(message.tool_calls) == (2 if is_several else 1)


def test_a_model_that_would_rather_talk_must_call(client):
    answer = client.chat.completions.create(
        model=MODEL,
        messages=say("I would rather talk."),
        tools=[OTHER],
        tool_choice="required",
        temperature=0,
        max_tokens=200,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_time"
    assert isinstance(json.loads(call.function.arguments), dict)


def test_no_tools_no_calls(client):
    answer = client.chat.completions.create(
        model=MODEL, messages=say("plain"), tools=[WEATHER], tool_choice="none"
    )
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content == "plain"
    assert answer.usage.prompt_tokens < 60, "the tools were shown to the model"


# ---- structured output ----------------------------------------------------------------------


class Person(pydantic.BaseModel):
    name: str
    age: int


SAID_PERSON = '{"name":"Ann","age":3}'


def test_a_parsed_answer(client):
    answer = client.chat.completions.parse(
        model=MODEL, messages=say(BARE_THOUGHT + SAID_PERSON), response_format=Person, temperature=0
    )
    assert answer.choices[0].message.parsed == Person(name="Ann", age=3)
    assert answer.choices[0].message.reasoning_content == "let me see"


@pytest.mark.parametrize("thought", ["", BARE_THOUGHT])
@pytest.mark.parametrize("thinks", [True, False])
def test_the_schema_holds_whatever_the_model_would_say(client, thought, thinks):
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 4},
            "age": {"type": "integer", "maximum": 9},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=say(f"{thought if thinks else ''}Sure! Here it is"),
        response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": schema}},
        temperature=0,
        max_tokens=200,
        extra_body={"chat_template_kwargs": {"enable_thinking": thinks}},
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"name", "age"}
    assert answer.choices[0].finish_reason == "stop"
    has_thought = bool(thought) and thinks
    assert hasattr(answer.choices[0].message, "reasoning_content") == has_thought


def test_a_json_object(client):
    answer = client.chat.completions.create(
        model=MODEL,
        messages=say(f'{BARE_THOUGHT}{{"a": [1, 2]}}'),
        response_format={"type": "json_object"},
        temperature=0,
    )
    assert json.loads(answer.choices[0].message.content) == {"a": [1, 2]}


# ---- sampling -------------------------------------------------------------------------------


def test_several_answers(client):
    answer = client.chat.completions.create(model=MODEL, messages=say("Hi"), n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"Hi"}
    stream = client.chat.completions.create(model=MODEL, messages=say("Hi"), n=3, stream=True)
    texts = ["", "", ""]
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["Hi"] * 3


def test_a_seed_repeats_itself_and_others_differ(client):
    def ask(seed: int | None) -> str:
        answer = client.completions.create(
            model=MODEL,
            prompt="abc",
            seed=seed,
            temperature=2,
            top_p=1,
            max_tokens=24,
            extra_body={"top_k": 0, "min_tokens": 24},
        )
        return answer.choices[0].text

    assert ask(7) == ask(7) != ask(8)
    assert ask(None) != ask(None)


@pytest.mark.parametrize("stop", ["wor", [" zzz", "o w", "wor"]])
@pytest.mark.parametrize("stream", [True, False])
def test_stop_strings(client, stop, stream):
    wanted = "hello " if stop == "wor" else "hell"
    answer = client.chat.completions.create(
        model=MODEL, messages=say("hello world"), stop=stop, stream=stream
    )
    if not stream:
        assert answer.choices[0].message.content == wanted
        assert answer.choices[0].finish_reason == "stop"
        return
    chunks = list(answer)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == wanted
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_lengths(client, name):
    answer = client.chat.completions.create(model=MODEL, messages=say("abcdef"), **{name: 3})
    assert answer.choices[0].message.content == "abc"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_a_cut_character_is_replaced(client):
    answer = client.chat.completions.create(model=MODEL, messages=say("a🙂"), max_tokens=3)
    assert answer.choices[0].message.content == "a\ufffd"


def test_extensions_arrive(client):
    answer = client.completions.create(
        model=MODEL,
        prompt="abc",
        temperature=1,
        max_tokens=12,
        extra_body={"top_k": 1, "min_tokens": 12, "logit_bias": {str(ord("z") - 33): 50}},
    )
    assert answer.choices[0].text == "z" * 12


# ---- log-probabilities ----------------------------------------------------------------------


def test_logprobs_of_a_chat(client):
    answer = client.chat.completions.create(
        model=MODEL, messages=say("é!"), logprobs=True, top_logprobs=3
    )
    tokens = answer.choices[0].logprobs.content
    assert bytes(byte for token in tokens for byte in token.bytes).decode() == "é!"
    assert all(len(token.top_logprobs) == 3 for token in tokens)
    assert all(token.top_logprobs[0].logprob == token.logprob for token in tokens)
    chunks = client.chat.completions.create(
        model=MODEL, messages=say("é!"), logprobs=True, top_logprobs=3, stream=True
    )
    streamed = [
        token
        for chunk in chunks
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert streamed == tokens


def test_scores_of_a_prompt(client):
    answer = client.completions.create(
        model=MODEL, prompt=["abc", "de"], echo=True, logprobs=1, max_tokens=0, temperature=0
    )
    first, second = answer.choices
    assert (first.text, second.text) == ("abc", "de")
    assert first.logprobs.tokens == ["a", "b", "c"]
    assert first.logprobs.text_offset == [0, 1, 2]
    assert first.logprobs.token_logprobs[0] is None
    assert all(value < 0 for value in first.logprobs.token_logprobs[1:])
    assert answer.usage.completion_tokens == 0


# ---- errors ---------------------------------------------------------------------------------


def test_errors_have_their_classes(client):
    with pytest.raises(openai.NotFoundError, match="tiny-qwen3, qwen3") as missing:
        client.chat.completions.create(model="gpt-4", messages=say("Hi"))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(
        openai.BadRequestError, match="maximum context length is 2048 tokens"
    ) as long:
        client.chat.completions.create(model=MODEL, messages=say("Hi", before="x" * 3000))
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="temperature") as wrong:
        client.chat.completions.create(model=MODEL, messages=say("Hi"), temperature=-1)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="cannot be compiled"):
        client.chat.completions.create(
            model=MODEL,
            messages=say("Hi"),
            stream=True,
            extra_body={"guided_regex": "(("},
        )


def test_the_snippet_of_the_documents(server):
    document = read_document(ROOT / "docs" / "serving.md")
    (snippet,) = [block.text for block in document.blocks if block.language == "python"]
    address, question = "http://127.0.0.1:8000/v1", "What is the capital of France?"
    assert address in snippet
    assert question in snippet
    asked = snippet.replace(address, f"{server.url}/v1").replace(
        question, say("Paris")[0]["content"]
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", asked], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "Paris"), done.stderr
