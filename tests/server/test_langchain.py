"""LangChain's ``ChatOpenAI``: a round with a tool, a stream, and a parsed answer."""

from __future__ import annotations

import pydantic
import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.server.live import say
from tests.server.test_openai_client import BARE_THOUGHT, CALL, MODEL, SAID_PERSON


@tool
def get_weather(city: str, days: int = 1) -> str:
    """Weather of a city."""
    return f"sunny in {city} for {days} days"


class Person(pydantic.BaseModel):
    """Somebody."""

    name: str
    age: int


@pytest.fixture
def chat(server) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def said(text: str) -> HumanMessage:
    return HumanMessage(say(text)[0]["content"])


def test_a_round_with_a_tool(chat):
    bound = chat.bind_tools([get_weather])
    messages = [SystemMessage("Be brief."), said(CALL)]
    answer = bound.invoke(messages)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Zürich", "days": 2})
    result = get_weather.invoke(call["args"])
    history = [
        *messages,
        answer,
        ToolMessage(result, tool_call_id=call["id"]),
        said("It is sunny."),
    ]
    answer = bound.invoke(history)
    assert answer.content == "It is sunny."
    assert answer.usage_metadata["total_tokens"] > 0


def test_a_stream(chat):
    chunks = list(chat.stream([said("one two three")]))
    assert "".join(chunk.content for chunk in chunks) == "one two three"
    assert len(chunks) > 5


def test_a_parsed_answer(chat):
    for method in ("json_schema", "json_mode"):
        parsing = chat.with_structured_output(Person, method=method)
        assert parsing.invoke([said(BARE_THOUGHT + SAID_PERSON)]) == Person(name="Ann", age=3)
    forced = chat.with_structured_output(Person, method="function_calling")
    call = f'<tool_call>\n{{"name": "Person", "arguments": {SAID_PERSON}}}\n</tool_call>'
    assert forced.invoke([said(BARE_THOUGHT + call)]) == Person(name="Ann", age=3)
