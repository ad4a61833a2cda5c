"""Chats and completions in detail: prompts as the model sees them, streams as they are sent."""

from __future__ import annotations

import json

import pytest

from tests.server.live import metric, say
from tests.server.test_bad_input import CHAT, TEXT

USER = {"role": "user", "content": "Hi"}


def prompt_of(http, messages, **fields) -> str:
    ids = http.post("/tokenize", json={"messages": messages, **fields}).json()["tokens"]
    return http.post("/detokenize", json={"tokens": ids}).json()["prompt"]


def events(response) -> list[dict]:
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, done = response.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]


def test_forms_of_content(http):
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    plain = prompt_of(http, [USER])
    assert plain == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert prompt_of(http, [{"role": "user", "content": parts}]) == plain
    assert prompt_of(http, [{**USER, "name": None, "refusal": None}]) == plain


def test_system_messages(http):
    roles = ("system", "developer", "system")
    messages = [{"role": role, "content": text} for role, text in zip(roles, "abc", strict=True)]
    prompt = prompt_of(http, [*messages, USER])
    assert prompt.startswith("<|im_start|>system\na\n\nb\n\nc<|im_end|>\n<|im_start|>user\nHi")


def test_the_thought_of_an_earlier_turn_is_not_shown(http):
    said = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello"}
    assert "hm" not in prompt_of(http, [USER, said, USER])


@pytest.mark.parametrize(
    ("text", "content", "reasoning"),
    [
        ("<think>\nhm\n</think>\n\nHi", "Hi", "hm"),
        ("no thought", "no thought", ""),
        ("<think>\nnever ends", "", "never ends"),
        ("<think>\n\n</think>\n\nHi", "Hi", ""),
        ("Hi</think> there", "Hi there", ""),
    ],
)
@pytest.mark.parametrize("thinks", [True, False])
def test_thoughts(http, text, content, reasoning, thinks):
    body = {"messages": say(text), "chat_template_kwargs": {"enable_thinking": thinks}}
    message = http.post(CHAT, json=body).json()["choices"][0]["message"]
    if thinks or "</think>" not in text:
        assert message["content"] == content
        assert message.get("reasoning_content", "") == reasoning
    assert "think>" not in message["content"]
    deltas = [
        chunk["choices"][0]["delta"]
        for chunk in events(http.post(CHAT, json={**body, "stream": True}))
    ]
    for name in ("content", "reasoning_content", "reasoning"):
        assert "".join(delta.get(name, "") for delta in deltas) == message.get(name, "")
    silent = http.post(CHAT, json={**body, "include_reasoning": False}).json()
    assert "reasoning" not in silent["choices"][0]["message"]


@pytest.mark.parametrize("thinks", [True, False])
def test_each_mode_has_its_own_sampling(http, thinks):
    """Greedy without a thought, as ``live.py`` recommends it."""
    body = {"messages": [USER], "chat_template_kwargs": {"enable_thinking": thinks}, "n": 4}
    answer = http.post(CHAT, json={**body, "min_tokens": 24, "max_tokens": 24}).json()
    assert (len({json.dumps(each["message"]) for each in answer["choices"]}) > 1) == thinks


def test_nulls_are_nothing(http):
    names: str = """
        stream stream_options temperature top_p top_k min_p n max_tokens max_completion_tokens stop
        seed logit_bias logprobs top_logprobs tools tool_choice response_format user
        presence_penalty chat_template_kwargs add_generation_prompt include_reasoning
        parallel_tool_calls store metadata reasoning_effort
    """
    nulls = dict.fromkeys(["model", *names.split()])
    response = http.post(CHAT, json={"messages": say("Hi"), **nulls})
    assert response.json()["choices"][0]["message"]["content"] == "Hi"


def test_a_broken_call_is_content(http):
    tools = [{"type": "function", "function": {"name": "f"}}]
    text = "<tool_call>\n{no call}\n</tool_call>"
    for stream in (False, True):
        body = {"messages": say(text), "tools": tools, "stream": stream}
        response = http.post(CHAT, json=body)
        assert response.status_code == 200
        assert "no call" in response.text
        assert '"finish_reason":"stop"' in response.text


def test_a_streamed_completion(http):
    body = {
        "prompt": say("abc")[0]["content"],
        "stream": True,
        "echo": True,
        "logprobs": 1,
        "stream_options": {"include_usage": True},
    }
    *chunks, usage = events(http.post(TEXT, json=body))
    assert usage["choices"] == []
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert all(chunk["id"].startswith("cmpl-") for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert "".join(choice["text"] for choice in choices) == f"{body['prompt']}abc"
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1]["finish_reason"] == "stop"
    offsets = [
        at for choice in choices if choice["logprobs"] for at in choice["logprobs"]["text_offset"]
    ]
    assert offsets == sorted(offsets)
    assert len(offsets) == usage["usage"]["total_tokens"]


def test_scores_of_a_chats_prompt(http):
    body = {"messages": [USER], "prompt_logprobs": 2, "max_tokens": 1}
    answer = http.post(CHAT, json=body).json()
    first, *others = answer["prompt_logprobs"]
    assert first is None
    assert len(others) == answer["usage"]["prompt_tokens"] - 1
    ids = http.post("/tokenize", json={"messages": [USER]}).json()["tokens"]
    for token, record in zip(ids[1:], others, strict=True):
        own = record[str(token)]
        assert own["logprob"] < 0
        assert own["rank"] >= 1
        assert len(record) in (2, 3)


def test_a_prefix_is_found_again(http):
    before = "a long common beginning " * 20
    messages = say("Hi", before=before)
    first = http.post(CHAT, json={"messages": messages}).json()["usage"]
    again = http.post(CHAT, json={"messages": messages}).json()["usage"]
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    cached = again["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0.9 * again["prompt_tokens"]
    assert metric(http, "prefix_cache_hits_total") >= cached


def test_tokens(http):
    found = http.post("/tokenize", json={"prompt": "aé"}).json()
    assert found["count"] == len(found["tokens"]) == 3
    assert found["max_model_len"] == 2048
    text = http.post("/detokenize", json={"tokens": found["tokens"]}).json()
    assert text == {"prompt": "aé"}
    assert http.post("/detokenize", json={"tokens": []}).json() == {"prompt": ""}


def test_service_pages(http):
    assert http.get("/version").json() == {"version": "9.9"}
    health = http.get("/health").json()
    assert (health["status"], health["engine"]["engine"]) == ("ready", "scripted")
    text = http.get("/metrics").text
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "prompt_tokens_total",
        "generation_tokens_total",
        'request_success_total{finished_reason="stop"}',
        "time_to_first_token_seconds_bucket",
        "inter_token_latency_seconds_bucket",
        "e2e_request_latency_seconds_bucket",
    ):
        assert f"qwen3_codegen_{name}" in text


def test_a_first_token_has_waited_and_been_computed(http):
    """Where its time went adds up, for every request."""
    names = ("time_to_first_token", "request_queue_time", "request_prefill_time")
    before = {name: metric(http, f"{name}_seconds_sum") for name in names}
    num_before = {name: metric(http, f"{name}_seconds_count") for name in names}
    http.post("/v1/completions", json={"prompt": "abc", "max_tokens": 3}).raise_for_status()
    spent = {name: metric(http, f"{name}_seconds_sum") - before[name] for name in names}
    for name in names:
        assert metric(http, f"{name}_seconds_count") == num_before[name] + 1
        assert spent[name] > 0
    first, queue, prefill = (spent[name] for name in names)
    assert queue + prefill == pytest.approx(first)
