"""The kit itself: the models are hard, every constant matters, and the checkpoints are honest."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.reference.cases import CASES, ReferenceCase
from tests.reference.models import (
    GREEDY_STEPS,
    ReferenceModel,
    assert_logits_match,
    build_model,
    forward,
    logits_bound,
)
from tests.reference.mutations import Mutation, mutations

pytestmark = pytest.mark.reference

JIUGE = [case for case in CASES if case.architecture == "jiuge"]
IN_TRANSFORMERS = [case for case in CASES if case.architecture != "jiuge"]

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def largest_difference(reference: ReferenceModel, model) -> float:
    """Largest difference of the default prompt's logits, in float32 bounds."""
    expected = reference.logits(reference.prompt())
    actual = forward(model, reference.prompt())
    return float(np.abs(actual - expected).max()) / logits_bound(expected)


def test_ids_are_unique():
    assert len({case.id for case in CASES}) == len(CASES)


@every_case
def test_greedy_has_a_margin_and_does_not_repeat_itself(case, reference):
    model = reference(case)
    tokens = model.greedy(model.prompt())
    assert len(tokens) == GREEDY_STEPS
    assert len(set(tokens)) >= 16
    model.assert_greedy(model.prompt(), tokens)


def test_greedy_in_one_pass_sees_any_other_token(reference):
    model = reference("qwen3-window-8")
    tokens = model.greedy(model.prompt())
    for step in (0, 31, GREEDY_STEPS - 1):
        other = [*tokens]
        other[step] = (tokens[step] + 1) % model.vocab_size
        with pytest.raises(AssertionError, match=f"step {step} is {other[step]}"):
            model.assert_greedy(model.prompt(), other)


@every_case
def test_attention_is_peaked_but_not_all_on_one_token(case, reference):
    model = reference(case)
    ids = torch.tensor([model.prompt()])
    with torch.inference_mode():
        layers = model.model(ids, use_cache=False, output_attentions=True).attentions
    most = [float(layer[0, :, 4:].max(dim=-1).values.mean()) for layer in layers]
    wide = [value for value, window in zip(most, windows(case), strict=True) if window != 1]
    assert min(wide) > 0.5
    assert max(wide) < 0.95


def windows(case: ReferenceCase) -> list[int | None]:
    layers = case.config["num_hidden_layers"]
    kinds = case.config.get("layer_types", ["sliding_attention"] * layers)
    size = case.config.get("sliding_window")
    return [size if kind == "sliding_attention" else None for kind in kinds]


@every_case
def test_float32_rounding_uses_little_of_the_bound(case, reference):
    model = reference(case)
    double = build_model(case.config, case.architecture)
    double.load_state_dict(model.model.state_dict())
    assert largest_difference(model, double.double()) < 0.25


@every_case
def test_norm_weights_and_eps_are_spread(case, reference):
    offset = 1.0 if case.architecture == "gemma3_text" else 0.0
    for name, parameter in reference(case).model.named_parameters():
        if "norm" in name:
            weight = parameter.detach() + offset
            assert float(weight.max() / weight.min()) > 1.5, name
        if name.endswith("bias"):
            assert float(parameter.detach().abs().max()) > 0.1, name
    assert 1e-2 <= case.config["rms_norm_eps"] <= 1e-1


@every_case
def test_every_constant_and_op_has_influence(case, reference):
    model = reference(case)
    found = mutations(model)
    assert len(found) >= 10
    weak = {
        mutation.id: moved
        for mutation in found
        if (moved := largest_difference(model, mutation.apply(model))) < mutation.influence
    }
    assert not weak


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        ("qwen3-window-3", ["window 2", "window 4", "layer_types", "self_attn.k_norm dropped"]),
        ("qwen3-window-1", ["window 2"]),
        ("qwen3-yarn", ["rope_scaling.factor", "rope_scaling.beta_fast", "rope_scaling ignored"]),
        ("llama-both-biases", ["self_attn.o_proj.bias dropped", "mlp.down_proj.bias dropped"]),
        ("jiuge-minicpm", ["scale_emb", "scale_depth", "dim_model_base", "gate and up swapped"]),
        ("gemma3", ["rope_local_base_freq", "pre_feedforward_layernorm eps"]),
        ("phi3-longrope-long", ["rope_scaling.long_factor"]),
        ("qwen3-moe", ["norm_topk_prob", "gate and up swapped"]),
    ],
)
def test_mutations_cover(id, expected, reference):
    assert set(expected) <= {mutation.id for mutation in mutations(reference(id))}


def test_an_unchanged_model_differs_by_nothing(reference):
    model = reference("qwen3-gqa-4")
    assert largest_difference(model, Mutation("none", edit=lambda copied: None).apply(model)) == 0.0


def test_a_close_argmax_is_refused(reference, monkeypatch):
    model = reference("qwen3-gqa-4")
    monkeypatch.setattr("tests.reference.models.MARGIN_IN_BOUNDS", 1e6)
    with pytest.raises(AssertionError, match=r"qwen3-gqa-4: step 0 leads by \d+"):
        model.greedy(model.prompt(index=1))
    with pytest.raises(AssertionError, match=r"qwen3-gqa-4: step 0 leads by \d+"):
        model.assert_greedy(model.prompt(index=1), [0])


@pytest.mark.parametrize("case", IN_TRANSFORMERS, ids=str)
def test_checkpoint_gives_the_same_logits(case, reference):
    model = reference(case)
    loaded = AutoModelForCausalLM.from_pretrained(
        model.path, attn_implementation="eager", dtype=torch.float32
    )
    if hasattr(loaded.config, "num_experts"):
        loaded.set_experts_implementation("eager")
    assert largest_difference(model, loaded.eval()) == 0.0


@every_case
def test_config_is_of_one_generation(case, reference):
    config = json.loads((reference(case).path / "config.json").read_text(encoding="utf-8"))
    newer = "rope_parameters" in config
    assert ("dtype" in config, "torch_dtype" in config) == (newer, not newer)
    assert not {"rope_theta", "rope_scaling"} & config.keys() or not newer


@pytest.mark.parametrize("case", JIUGE, ids=str)
def test_jiuge_is_minicpm(case, reference):
    """MiniCPM's scales, written out once more around plain Llama layers."""
    model = reference(case)
    config = dict(case.config)
    scale_emb, scale_depth, base = (
        config.pop(name) for name in ("scale_emb", "scale_depth", "dim_model_base")
    )
    config.pop("model_type")
    llama = build_model(config, "llama")
    state = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    state["lm_head.weight"] = state["lm_head.weight"] / (config["hidden_size"] / base)
    branch = scale_depth / config["num_hidden_layers"] ** 0.5
    for name in state:
        if "o_proj" in name or "down_proj" in name:
            state[name] *= branch
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"] * scale_emb
    llama.lm_head.weight = torch.nn.Parameter(llama.lm_head.weight.detach().clone())
    llama.load_state_dict(state)
    assert largest_difference(model, llama) < 1.0


def test_window_one_sees_only_itself(reference):
    """The reference never uses transformers' cache, whose window of 1 is wrong."""
    model = reference("qwen3-window-1")
    prompt = model.prompt()
    tokens = model.greedy(prompt, 8)
    whole = model.logits([*prompt, *tokens])
    assert tokens == whole[len(prompt) - 1 : -1].argmax(axis=-1).tolist()


def test_match_names_the_worst_place(reference):
    model = reference("qwen3-gqa-4")
    expected = model.logits(model.prompt())
    assert_logits_match(expected + 0.9 * logits_bound(expected), expected)
    wrong = expected.copy()
    wrong[2, 17] += 3 * logits_bound(expected)
    with pytest.raises(AssertionError, match=r"row 2, token 17: .* 3(\.\d+)? times the bound"):
        assert_logits_match(wrong, expected)
    with pytest.raises(AssertionError, match="not finite"):
        assert_logits_match(np.full_like(expected, np.nan), expected)
