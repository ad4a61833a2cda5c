"""Hard little models in transformers, saved as the checkpoints an engine reads.

Hard means that a wrong engine cannot pass by luck: norm weights are spread, eps is large enough
to matter, biases are not zero, attention looks at few tokens, and the best token is ahead of the
second by much more than the rounding an engine is allowed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from tests.reference.cases import ReferenceCase

RELATIVE_BOUND = 2e-5
"""A float32 engine may differ by this much, times the largest logit (at least 1)."""
MARGIN_IN_BOUNDS = 10.0
"""The best token of every greedy step leads by at least this many bounds."""
GREEDY_STEPS = 64

GAINS = {
    "embedding": 0.25,
    "tied": 0.3,
    "score": 4.5,
    "value": 1.0,
    "output": 0.6,
    "mlp": 1.5,
    "down": 0.6,
    "router": 2.0,
    "bias": 0.2,
    "final_norm": 1.0,
    "head": 3.0,
}
"""Standard deviations of groups of weights: of embeddings, biases and attention scores as they
are, of linear layers times the root of their input size; the final norm's mean. The residual
stream stays near 1, so that eps matters in every norm."""

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()  # it doubts odd rope parameters, which are meant

_MINICPM_TYPES = ("minicpm", "fm9g")


def logits_bound(reference: NDArray[np.float32]) -> float:
    """Returns how far float32 logits may lie from the reference's, as max |difference|."""
    return RELATIVE_BOUND * max(1.0, float(np.abs(reference).max()))


def assert_logits_match(
    actual: NDArray[np.float32], expected: NDArray[np.float32], *, most_bounds: float = 1.0
) -> None:
    """Fails when float32 logits lie outside the bound, naming the worst row and token id."""
    assert actual.shape == expected.shape, f"{actual.shape} is not {expected.shape}"
    assert np.isfinite(actual).all(), "logits are not finite"
    difference = np.abs(actual - expected)
    row, token = np.unravel_index(difference.argmax(), difference.shape)
    bounds = float(difference[row, token]) / logits_bound(expected)
    assert bounds <= most_bounds, (
        f"row {row}, token {token}: {actual[row, token]} instead of {expected[row, token]}, "
        f"{bounds:.3g} times the bound"
    )


class ReferenceModel:
    """A case's model in transformers, and the folder that holds it as a checkpoint.

    Results are kept, so that several tests may ask for the same ones.
    """

    def __init__(self, case: ReferenceCase, model: Any, path: Path) -> None:
        self.case = case
        self.model = model
        self.path = path
        self._logits: dict[tuple[int, ...], NDArray[np.float32]] = {}
        self._greedy: dict[tuple[int, ...], list[int]] = {}

    @cached_property
    def vocab_size(self) -> int:
        """Number of logits per token."""
        return int(self.case.config["vocab_size"])

    def prompt(self, length: int | None = None, index: int = 0) -> list[int]:
        """Returns token ids, of the case's own length unless told; each index is unrelated."""
        rng = np.random.default_rng((self.case.seed, 1, index))
        count = self.case.prompt_lens[index] if length is None else length
        return rng.integers(0, self.vocab_size, size=count).tolist()

    def prompts(self) -> list[list[int]]:
        """Returns the case's prompts, all of which can be continued greedily."""
        return [self.prompt(index=index) for index in range(len(self.case.prompt_lens))]

    def logits(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Returns logits [num_tokens, vocab_size] of one full forward pass without a cache."""
        key = tuple(token_ids)
        if key not in self._logits:
            rows = forward(self.model, token_ids)
            rows.flags.writeable = False
            self._logits[key] = rows
        return self._logits[key]

    def greedy(self, token_ids: Sequence[int], num_tokens: int = GREEDY_STEPS) -> list[int]:
        """Returns the continuation by argmax, every step a full forward pass without a cache.

        Raises:
            AssertionError: The argmax of a step is too close to call; the case needs another seed.
        """
        key = tuple(token_ids)
        found = self._greedy.setdefault(key, [])
        while len(found) < num_tokens:
            row = forward(self.model, [*key, *found])[-1]
            margin = margin_in_bounds(row)
            assert margin >= MARGIN_IN_BOUNDS, (
                f"{self.case.id}: step {len(found)} leads by {margin:.1f} bounds only"
            )
            found.append(int(row.argmax()))
        return found[:num_tokens]

    def assert_greedy(self, token_ids: Sequence[int], continuation: Sequence[int]) -> None:
        """Fails unless every token of ``continuation`` is the argmax after all before it.

        One pass over all of them, for a row of a causal model is the same whatever comes after it;
        ``greedy`` takes a pass per token.

        Raises:
            AssertionError: A token is another one, or the argmax is too close to call.
        """
        rows = self.logits([*token_ids, *continuation[:-1]])[len(token_ids) - 1 :]
        for step, (row, token) in enumerate(zip(rows, continuation, strict=True)):
            margin = margin_in_bounds(row)
            assert margin >= MARGIN_IN_BOUNDS, (
                f"{self.case.id}: step {step} leads by {margin:.1f} bounds only"
            )
            assert token == row.argmax(), f"{self.case.id}: step {step} is {token}"


def margin_in_bounds(row: NDArray[np.float32]) -> float:
    """Returns how far the best logit leads, in units of the float32 bound."""
    second, best = np.partition(row, -2)[-2:]
    return float(best - second) / logits_bound(row)


def forward(model: Any, token_ids: Sequence[int]) -> NDArray[np.float32]:
    """Returns a transformers model's logits [num_tokens, vocab_size] without a cache."""
    with torch.inference_mode():
        output = model(torch.tensor([list(token_ids)]), use_cache=False)
    return output.logits[0].float().numpy()


def build_reference(case: ReferenceCase, directory: Path) -> ReferenceModel:
    """Builds the case's model with seeded weights and saves it under ``directory``."""
    model = build_model(case.config, case.architecture)
    draw_weights(model, case)
    path = directory / case.id
    save_checkpoint(model, case, path)
    return ReferenceModel(case, model, path)


def build_model(config: Mapping[str, Any], architecture: str) -> Any:
    """Returns transformers' model of a config.json, with weights yet to be set."""
    torch.set_num_threads(1)
    transformers_config = _transformers_config(config, architecture)
    model = AutoModelForCausalLM.from_config(
        transformers_config, attn_implementation="eager", dtype=torch.float32
    )
    if hasattr(transformers_config, "num_experts"):
        model.set_experts_implementation("eager")
    return model.eval()


def _transformers_config(config: Mapping[str, Any], architecture: str) -> Any:
    fields = json.loads(json.dumps(config))  # transformers changes nested dicts in place
    model_type = fields.pop("model_type", architecture)
    if model_type in _MINICPM_TYPES:
        model_type = "granite"
        fields = _granite_fields(fields)
    return AutoConfig.for_model(model_type, **fields)


def _granite_fields(minicpm: dict[str, Any]) -> dict[str, Any]:
    """Says in Granite's words what MiniCPM's scales mean.

    MiniCPM multiplies embeddings by scale_emb, both residual branches by
    scale_depth / sqrt(num_hidden_layers), and divides the hidden state before the head by
    hidden_size / dim_model_base. Granite names these multipliers one by one.
    """
    hidden_size = minicpm["hidden_size"]
    head_dim = hidden_size // minicpm["num_attention_heads"]
    depth = minicpm.pop("scale_depth") / math.sqrt(minicpm["num_hidden_layers"])
    return {
        **minicpm,
        "embedding_multiplier": minicpm.pop("scale_emb"),
        "residual_multiplier": depth,
        "logits_scaling": hidden_size / minicpm.pop("dim_model_base"),
        "attention_multiplier": 1.0 / math.sqrt(head_dim),
    }


def draw_weights(model: Any, case: ReferenceCase) -> None:
    """Fills every parameter from the case's seed."""
    rng = np.random.default_rng(case.seed)
    gains = GAINS | dict(case.gains)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = _draw(rng, name, tuple(parameter.shape), model, gains)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
            parameter.copy_(parameter.to(_stored_in(case, name)).float())


def _draw(
    rng: np.random.Generator,
    name: str,
    shape: tuple[int, ...],
    model: Any,
    gains: Mapping[str, float],
) -> NDArray[np.float64]:
    config = model.config
    if "norm" in name:
        weight = rng.uniform(0.5, 1.5, shape)
        if "q_norm" in name or "k_norm" in name:
            weight *= math.sqrt(gains["score"] / _score_spread(model))
        elif name == "model.norm.weight":
            weight *= gains["final_norm"]
        return weight - 1.0 if config.model_type == "gemma3_text" else weight
    normal = rng.standard_normal(shape)
    if name.endswith(".bias"):
        return normal * gains["bias"]
    if "embed_tokens" in name:
        return normal * gains["tied" if config.tie_word_embeddings else "embedding"]
    return normal * _linear_gain(name, shape, model, gains) / math.sqrt(shape[-1])


def _linear_gain(
    name: str, shape: tuple[int, ...], model: Any, gains: Mapping[str, float]
) -> NDArray[np.float64] | float:
    query_key = math.sqrt(gains["score"] / _score_spread(model))
    if any("q_norm" in parameter for parameter, _ in model.named_parameters()):
        query_key = 1.0
    if "qkv_proj" in name:
        value_rows = model.config.num_key_value_heads * model.model.layers[0].self_attn.head_dim
        gain = np.full((shape[0], 1), query_key)
        gain[-value_rows:] = gains["value"]
        return gain
    kinds = {
        "lm_head": gains["head"],
        "q_proj": query_key,
        "k_proj": query_key,
        "v_proj": gains["value"],
        "o_proj": gains["output"],
        "down_proj": gains["down"],
        "mlp.gate.weight": gains["router"],
    }
    return next((gain for kind, gain in kinds.items() if kind in name), gains["mlp"])


def _score_spread(model: Any) -> float:
    """Standard deviation of attention scores of unit queries and keys."""
    attention = model.model.layers[0].self_attn
    return float(attention.scaling * math.sqrt(attention.head_dim))


def save_checkpoint(model: Any, case: ReferenceCase, path: Path) -> None:
    """Writes safetensors and config.json as a publisher of this model would."""
    state = {name: tensor.to(_stored_in(case, name)) for name, tensor in model.state_dict().items()}
    shards = {} if case.max_shard_size is None else {"max_shard_size": case.max_shard_size}
    model.save_pretrained(path, state_dict=state, **shards)
    if not case.saved_by_transformers:
        text = json.dumps(published_config(case), indent=2)
        (path / "config.json").write_text(text + "\n", encoding="utf-8")


def _stored_in(case: ReferenceCase, name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, case.checkpoint_dtype)
    return torch.float32 if "norm" in name else dtype


def published_config(case: ReferenceCase) -> dict[str, Any]:
    """Returns config.json of a case, in the generation its rope fields belong to."""
    classes = {
        "qwen2": "Qwen2ForCausalLM",
        "qwen3": "Qwen3ForCausalLM",
        "qwen3_moe": "Qwen3MoeForCausalLM",
        "llama": "LlamaForCausalLM",
        "granite": "GraniteForCausalLM",
        "minicpm": "MiniCPMForCausalLM",
        "fm9g": "FM9GForCausalLM",
        "olmo2": "Olmo2ForCausalLM",
        "gemma3_text": "Gemma3ForCausalLM",
        "phi3": "Phi3ForCausalLM",
    }
    model_type = case.config.get("model_type", case.architecture)
    dtype_field = "dtype" if "rope_parameters" in case.config else "torch_dtype"
    return {
        "architectures": [classes[model_type]],
        "model_type": model_type,
        dtype_field: case.checkpoint_dtype,
        **case.config,
    }
