"""``LLM.hidden_states`` against transformers' ``output_hidden_states=True``."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import numpy as np
import pytest
import torch

from qwen3_runtime.errors import EngineError, RequestError
from tests.reference.models import ReferenceModel, logits_bound


def theirs(model: ReferenceModel, token_ids: SequenceOf[int]) -> np.ndarray:
    with torch.inference_mode():
        output = model.model(
            torch.tensor([list(token_ids)]), use_cache=False, output_hidden_states=True
        )
    return np.stack([state[0].numpy() for state in output.hidden_states])


def assert_same_states(llm, model: ReferenceModel) -> None:
    prompts = model.prompts()
    found = llm.hidden_states(prompts)
    assert len(found) == len(prompts)
    for prompt, actual in zip(prompts, found, strict=True):
        expected = theirs(model, prompt)
        assert actual.dtype == np.float32
        assert actual.shape == expected.shape
        for state, (ours, hers) in enumerate(zip(actual, expected, strict=True)):
            assert np.abs(ours - hers).max() <= logits_bound(hers), f"state {state}"


@pytest.mark.compile
@pytest.mark.parametrize(
    ("id", "choices"),
    [
        ("gemma3", {"lowering": "native"}),
        ("jiuge-minicpm", {"lowering": "native"}),
        ("olmo2", {"lowering": "native"}),
        ("granite", {"lowering": "portable"}),
        ("qwen2", {"dev": "mlu"}),
    ],
)
def test_of_compiled_engines(id, choices, reference, open_llm):
    model = reference(id)
    llm = open_llm(model.path, **choices)
    assert_same_states(llm, model)


@pytest.mark.parametrize("id", ["gemma3-softcap", "jiuge-fm9g-tied", "qwen3-moe", "phi3"])
def test_of_the_interpreter(id, reference, open_llm):
    model = reference(id)
    assert_same_states(open_llm(model.path, engine="interpreter"), model)


@pytest.mark.compile
def test_in_several_steps_beside_generation(reference, open_llm):
    """The engine that shows its values is another one: neither disturbs the other."""
    model = reference("gemma3")
    llm = open_llm(model.path, lowering="native", max_num_batched_tokens=8)
    before = llm.logits(model.prompts())
    assert_same_states(llm, model)
    for rows, again in zip(before, llm.logits(model.prompts()), strict=True):
        np.testing.assert_array_equal(rows, again)


@pytest.mark.compile
def test_the_second_engine_is_made_once_and_said(
    reference, open_llm, engine_cache, monkeypatch, tmp_path, capfd
):
    open_llm(reference("qwen2").path, lowering="native")  # makes the runtime, which is kept
    (tmp_path / "runtime").symlink_to(engine_cache / "runtime")
    monkeypatch.setenv("QWEN3_CODEGEN_CACHE", str(tmp_path))
    llm = open_llm(reference("qwen2").path, lowering="native")
    assert "shows its values" not in capfd.readouterr().err
    (states,) = llm.hidden_states([3, 1, 4])
    captured = capfd.readouterr()
    assert captured.err == "compiling the engine (the one that shows its values)\n"
    assert captured.out == ""
    (again,) = llm.hidden_states([[3, 1, 4]])
    np.testing.assert_array_equal(states, again)
    assert capfd.readouterr().err == ""
    other = open_llm(reference("qwen2").path, lowering="native")
    np.testing.assert_array_equal(other.hidden_states([3, 1, 4])[0], states)
    assert capfd.readouterr().err == "", "it is in the cache"


@pytest.mark.compile
def test_a_second_engine_that_does_not_fit_the_memory(reference, open_llm, monkeypatch):
    llm = open_llm(reference("qwen2").path, lowering="portable")
    monkeypatch.setattr("qwen3_runtime.engine.capacity.available_memory", lambda: 1000)
    with pytest.raises(EngineError, match="does not fit the free memory"):
        llm.hidden_states([1, 2, 3])
    monkeypatch.undo()
    assert llm.hidden_states([1, 2, 3])[0].shape == (4, 3, 56)


def test_a_trace_of_one_prompt(reference, open_llm):
    model = reference("qwen3-window-8")
    llm = open_llm(model.path, engine="interpreter")
    values = llm.trace([3, 1, 4])
    assert values["layers.2.h"].shape == (3, 52)
    np.testing.assert_array_equal(values["epilogue.logits"], llm.logits([[3, 1, 4]])[0])
    with pytest.raises(RequestError, match="a trace is of one prompt"):
        llm.trace([[1], [2]])


@pytest.mark.parametrize("prompts", [[], [[]], [[1, 400]], [list(range(200))], "text"])
def test_prompts_that_cannot_be_served(prompts, reference, open_llm):
    llm = open_llm(reference("qwen3-window-8").path, engine="interpreter")
    if prompts == []:
        assert llm.hidden_states(prompts) == []
        return
    with pytest.raises(RequestError):
        llm.hidden_states(prompts)
