"""On a real engine: a beginning that is taken from the cache changes no bit of what follows."""

from __future__ import annotations

import pytest

from qwen3_codegen import SamplingParams
from qwen3_runtime.engine.core import EngineCore, EngineRequest

pytestmark = pytest.mark.compile

BLOCK = 32
SCORED = SamplingParams(temperature=0.0, logprobs=3, ignore_eos=True)


def answers(core: EngineCore, prompts: dict[str, list[int]]):
    """Tokens with their log-probabilities, and how much of each prompt was known."""
    for name, prompt in prompts.items():
        core.add(
            EngineRequest(
                request_id=name, prompt_token_ids=tuple(prompt), params=SCORED, max_tokens=12
            )
        )
    found = {name: [] for name in prompts}
    known = {}
    while core.has_work:
        for output in core.step():
            assert output.error is None, output.error
            found[output.request_id].append(output.logprobs)
            known[output.request_id] = output.num_cached_tokens
        core.check_integrity()
    return found, known


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("id", ["qwen3-window-8", "qwen3-gqa-7x2"])
def test_bits_are_those_of_a_prompt_computed_whole(id, dtype, reference, open_llm):
    model = reference(id)
    options = {"dtype": dtype, "lowering": "native", "max_model_len": 160}
    engine = open_llm(model.path, **options).engine
    stem = model.prompt(length=3 * BLOCK, index=50)
    prompts = {
        "the stem itself": stem,
        "one token more": [*stem, 7],
        "another end": [*stem[: 2 * BLOCK + 5], *model.prompt(length=40, index=51)],
        "a stranger": model.prompt(length=50, index=52),
    }
    alone = {}
    for name, prompt in prompts.items():
        alone |= answers(EngineCore(engine), {name: prompt})[0]
    core = EngineCore(engine)
    answers(core, {"first": stem})
    together, known = answers(core, prompts)
    assert together == alone
    assert known == {
        "the stem itself": 3 * BLOCK - 1,
        "one token more": 3 * BLOCK,
        "another end": 2 * BLOCK,
        "a stranger": 0,
    }
