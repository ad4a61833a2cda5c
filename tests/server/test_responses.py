"""The Responses API, with the official client and as Codex speaks it."""

from __future__ import annotations

import asyncio
import itertools
import json

import openai
import pydantic
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from qwen3_runtime.chat import AnswerDelta, ToolCallDelta
from qwen3_runtime.server.protocol import ResponsesRequest
from qwen3_runtime.server.responses_output import Output
from qwen3_runtime.server.responses_request import response_wish
from tests.server.live import assert_idle, client_that_leaves, metric, say
from tests.server.test_life import LONG, SLOW, wait_until
from tests.server.test_openai_client import (
    BARE_THOUGHT,
    CALL,
    MODEL,
    SAID_PERSON,
    THOUGHT,
    WEATHER,
    Person,
)

RESPONSES = "/v1/responses"
TOOL = {"type": "function", **WEATHER["function"]}
EVENT = pydantic.TypeAdapter(ResponseStreamEvent)


def said(text: str) -> str:
    """Input that has the scripted engine say a text."""
    return say(text)[0]["content"]


def text_part(text: str, kind: str = "input_text") -> dict:
    return {"type": kind, "text": text}


def events_of(http, **body) -> list[dict]:
    """What a stream says, after a look at what all of its events have in common."""
    response = http.post(RESPONSES, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    events = []
    for text in response.text.strip().split("\n\n"):
        name, _, content = text.partition("\n")
        event = json.loads(content.removeprefix("data: "))
        EVENT.validate_python(event)
        assert name == f"event: {event['type']}"
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    responses = [event["response"] for event in events if "response" in event]
    assert len({response["id"] for response in responses}) == 1
    return events


def kinds_of(events) -> list[str]:
    """Names of events, those that repeat once."""
    names = (event["type"].removeprefix("response.") for event in events)
    return [name for name, _ in itertools.groupby(names)]


def without_ids(output: list[dict]) -> list[dict]:
    return [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in output]


# ---- answers --------------------------------------------------------------------------------


def test_a_whole_response(client, http):
    answer = client.responses.create(
        model=MODEL,
        input=said(f"{THOUGHT}Grüße, 世界 🙂"),
        instructions="Be brief.",
        metadata={"topic": "greetings"},
        temperature=0.5,
        store=True,
    )
    assert answer.output_text == "Grüße, 世界 🙂"
    assert answer.id.startswith("resp_")
    assert (answer.object, answer.status, answer.model) == ("response", "completed", MODEL)
    assert answer.completed_at >= answer.created_at
    assert (answer.error, answer.incomplete_details) == (None, None)
    assert (answer.instructions, answer.metadata) == ("Be brief.", {"topic": "greetings"})
    assert (answer.temperature, answer.store) == (0.5, False)
    thought, message = answer.output
    assert thought.id.startswith("rs_")
    assert [part.text for part in thought.content] == ["let me see"]
    assert message.id.startswith("msg_")
    assert (message.role, message.status) == ("assistant", "completed")
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.output_tokens_details.reasoning_tokens == len("<think>\nlet me see") - 6
    raw = http.post(RESPONSES, json={"input": said("Hi")}).json()
    Response.model_validate(raw)
    assert [item["type"] for item in raw["output"]] == ["message"]


def test_the_prefix_that_the_cache_had(client):
    text = "what comes before " * 20 + said("Hi")
    first, second = (client.responses.create(model=MODEL, input=text).usage for _ in range(2))
    assert first.input_tokens == second.input_tokens
    assert second.input_tokens_details.cached_tokens > 0


def test_events_of_a_message(http):
    events = events_of(http, input=said(f"{THOUGHT}Grüße, 世界 🙂"))
    item = ["output_item.added", "content_part.added"]
    end = ["content_part.done", "output_item.done"]
    assert kinds_of(events) == [
        "created",
        "in_progress",
        *item,
        "reasoning_text.delta",
        "reasoning_text.done",
        *end,
        *item,
        "output_text.delta",
        "output_text.done",
        *end,
        "completed",
    ]
    for kind, text in (("reasoning_text", "let me see"), ("output_text", "Grüße, 世界 🙂")):
        pieces = [e["delta"] for e in events if e["type"] == f"response.{kind}.delta"]
        assert "".join(pieces) == text
        assert len(pieces) > 5
        (done,) = (e for e in events if e["type"] == f"response.{kind}.done")
        assert done["text"] == text
    created, last = events[0]["response"], events[-1]["response"]
    assert (created["status"], created["output"], created["usage"]) == ("in_progress", [], None)
    added = [e["item"] for e in events if e["type"] == "response.output_item.added"]
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert [item["content"] for item in added] == [[], []]
    assert [item["id"] for item in added] == [item["id"] for item in last["output"]]
    assert done == last["output"]
    for event in events:
        if "item_id" in event:
            assert event["item_id"] == added[event["output_index"]]["id"]


@pytest.mark.parametrize(
    "text", [f"{THOUGHT}Hello.", f"I look.\n{CALL}\n{CALL}", f"{CALL}\nDone.", "", THOUGHT]
)
def test_a_stream_ends_in_the_whole(http, text):
    body = {"input": said(text), "tools": [TOOL], "temperature": 0}
    whole = http.post(RESPONSES, json=body).json()
    streamed = events_of(http, **body)[-1]["response"]
    assert without_ids(streamed["output"]) == without_ids(whole["output"])
    assert streamed["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    assert streamed.keys() == whole.keys()


def test_the_clients_stream(client):
    with client.responses.stream(model=MODEL, input=said(f"{THOUGHT}Hello there")) as stream:
        events = list(stream)
        final = stream.get_final_response()
    pieces = [event for event in events if event.type == "response.output_text.delta"]
    assert pieces[-1].snapshot == final.output_text == "Hello there"


def test_the_async_client(server):
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
            stream = await client.responses.create(model=MODEL, input=said("Hi"), stream=True)
            pieces = [event.delta async for event in stream if "text.delta" in event.type]
            return "".join(pieces)

    assert asyncio.run(ask()) == "Hi"


def test_parsed_answers(client):
    asked = {"model": MODEL, "input": said(BARE_THOUGHT + SAID_PERSON), "temperature": 0}
    answer = client.responses.parse(text_format=Person, **asked)
    assert answer.output_parsed == Person(name="Ann", age=3)
    assert answer.text.format.name == "Person"
    with client.responses.stream(text_format=Person, **asked) as stream:
        assert stream.get_final_response().output_parsed == Person(name="Ann", age=3)


def test_the_schema_holds(client):
    answer = client.responses.parse(
        model=MODEL, input=said("I had rather not."), text_format=Person, temperature=0
    )
    assert set(json.loads(answer.output_text)) == {"name", "age"}


def test_a_json_object(client):
    answer = client.responses.create(
        model=MODEL,
        input=said(f'{BARE_THOUGHT}{{"a": 1}}'),
        text={"format": {"type": "json_object"}},
    )
    assert json.loads(answer.output_text) == {"a": 1}


@pytest.mark.parametrize(("effort", "thinks"), [("none", False), ("high", True), (None, True)])
def test_effort(effort, thinks):
    wish = response_wish(ResponsesRequest(input="Hi", reasoning={"effort": effort}))
    assert wish.chat.chat_template_kwargs == (None if thinks else {"enable_thinking": False})


def test_no_thought_where_none_is_wanted(client):
    asked = {"model": MODEL, "input": said("Hi")}
    thinking = client.responses.create(**asked)
    silent = client.responses.create(**asked, reasoning={"effort": "none"})
    assert silent.usage.input_tokens > thinking.usage.input_tokens  # the shut thought
    assert silent.reasoning.effort == "none"


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("abcdef", ["message"]),
        (f"{THOUGHT}abc", ["reasoning"]),
        (CALL, ["function_call"]),
    ],
)
def test_an_answer_that_is_cut(http, text, types):
    body = {"input": said(text), "tools": [TOOL], "max_output_tokens": {CALL: 45}.get(text, 5)}
    events = events_of(http, **body)
    last = events[-1]
    assert last["type"] == "response.incomplete"
    whole = http.post(RESPONSES, json=body).json()
    for response in (last["response"], whole):
        Response.model_validate(response)
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["completed_at"] is None
        assert [item["type"] for item in response["output"]] == types
        assert response["output"][-1]["status"] == "incomplete"
        assert response["usage"]["output_tokens"] == body["max_output_tokens"]


@pytest.mark.parametrize(
    "wish", [{"top_logprobs": 2}, {"include": ["message.output_text.logprobs"]}]
)
def test_logprobs(http, wish):
    events = events_of(http, input=said(f"{THOUGHT}Hi <b> you"), temperature=0, **wish)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    for delta in deltas:
        assert "".join(token["token"] for token in delta["logprobs"]) == delta["delta"]
    _, message = events[-1]["response"]["output"]
    tokens = message["content"][0]["logprobs"]
    assert tokens == [token for delta in deltas for token in delta["logprobs"]]
    assert {len(token["top_logprobs"]) for token in tokens} == {wish.get("top_logprobs", 0)}


def test_no_logprobs_unasked(http):
    events = events_of(http, input=said("Hi"))
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == []


# ---- tools ----------------------------------------------------------------------------------


def test_a_round_with_a_tool(client):
    items: list = [{"role": "user", "content": said(f"{THOUGHT}I will look.\n{CALL}")}]
    answer = client.responses.create(model=MODEL, input=items, tools=[TOOL])
    _, message, call = answer.output
    assert message.content[0].text == "I will look."
    assert call.id.startswith("fc_")
    assert call.call_id not in ("", call.id)
    assert (call.name, call.status) == ("get_weather", "completed")
    assert json.loads(call.arguments) == {"city": "Zürich", "days": 2}
    assert (answer.tools[0].name, answer.tool_choice) == ("get_weather", "auto")
    items += [item.model_dump() for item in answer.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    items.append({"role": "user", "content": [{"type": "input_text", "text": said("Dry.")}]})
    final = client.responses.create(model=MODEL, input=items, tools=[TOOL])
    assert final.output_text == "Dry."


def test_events_of_calls(client):
    with client.responses.stream(
        model=MODEL, input=said(f"{CALL}\n{CALL}"), tools=[TOOL]
    ) as stream:
        events = list(stream)
        first, second = stream.get_final_response().output
    assert first.call_id != second.call_id
    pieces = {0: "", 1: ""}
    for event in events:
        if event.type == "response.function_call_arguments.delta":
            pieces[event.output_index] += event.delta
    assert pieces == {0: first.arguments, 1: second.arguments}
    assert json.loads(second.arguments) == {"city": "Zürich", "days": 2}
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [event.name for event in done] == ["get_weather"] * 2


def test_the_end_of_a_call_beside_what_comes_after():
    output = Output({})
    first, more = ToolCallDelta(0, "call_1", "f", "{"), ToolCallDelta(0, None, None, "}")
    after = AnswerDelta(content="Done.", tool_calls=(more,))
    events = [*output.add(AnswerDelta(tool_calls=(first,)), []), *output.add(after, [])]
    events += output.finish("completed")
    call, message = output.body()
    assert (call["arguments"], call["status"]) == ("{}", "completed")
    assert message["content"][0]["text"] == "Done."
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == [call, message]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
def test_calls_that_must_be(client, choice):
    answer = client.responses.create(
        model=MODEL, input=said("No."), tools=[TOOL], tool_choice=choice, temperature=0
    )
    assert answer.output[0].type == "function_call"
    assert answer.output[0].name == "get_weather"


def test_one_call_and_none(client):
    asked = {"model": MODEL, "input": said(f"{CALL}\n{CALL}"), "tools": [TOOL]}
    answer = client.responses.create(parallel_tool_calls=False, **asked)
    assert [item.type for item in answer.output] == ["function_call"]
    assert answer.parallel_tool_calls is False
    answer = client.responses.create(tool_choice="none", **asked)
    assert [item.type for item in answer.output] == ["message"]


def test_what_codex_sends(http):
    """An agent's request: its tools, its roles, and a turn that is over."""
    namespace = {"type": "namespace", "name": "maps", "description": "", "tools": [TOOL]}
    shell = {"type": "function", "name": "shell", "strict": False, "parameters": {"type": "object"}}
    body = {
        "model": MODEL,
        "instructions": "You are a coding agent.",
        "input": [
            {"type": "message", "role": "developer", "content": [text_part("Sandbox: none.")]},
            {"type": "message", "role": "user", "content": [text_part("Look around.")]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None},
            {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": "c1"},
            {"type": "function_call_output", "call_id": "c1", "output": "README.md"},
            {"type": "message", "role": "user", "content": [text_part(said(CALL))]},
        ],
        "tools": [shell, {"type": "web_search", "external_web_access": False}, namespace],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": None,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199",
        "client_metadata": {"x": "y"},
    }
    last = events_of(http, **body)[-1]
    assert last["type"] == "response.completed"
    (call,) = last["response"]["output"]
    assert (call["name"], call["namespace"]) == ("get_weather", "maps")
    assert [tool["type"] for tool in last["response"]["tools"]] == ["function", "namespace"]


# ---- failures -------------------------------------------------------------------------------


def test_a_failing_step(serve):
    running = serve(engine={"fails_at": [3]})
    with running.http() as http:
        last = events_of(http, input=said("Hello"))[-1]
        assert last["type"] == "response.failed"
        assert last["response"]["status"] == "failed"
        assert last["response"]["error"]["code"] == "server_error"
        assert "the device is gone" not in json.dumps(last)
        (message,) = last["response"]["output"]
        assert message["status"] == "incomplete"
        assert_idle(http)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_work(serve, stream):
    running = serve(engine=SLOW)
    body = {"input": said(LONG), "stream": stream}
    with running.http() as http:
        with client_that_leaves(running, RESPONSES, body):
            wait_until(lambda: metric(http, "num_requests_running") == 1)
        assert_idle(http)
        assert metric(http, "request_abort_total") == 1
