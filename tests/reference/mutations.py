"""Small wrongs done to a reference model: what an engine must never get away with.

Each mutation is one constant or op of the model changed a little. If the logits of a case did not
move under it, a comparison with that case could not tell a right engine from a wrong one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from tests.reference.cases import ReferenceCase
from tests.reference.models import ReferenceModel, build_model

Edit: TypeAlias = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A named change: of config fields (``fields``), or of the built model (``edit``).

    ``influence`` is how far it must move some logit at least, in units of the float32 bound.
    """

    id: str
    fields: Mapping[str, Any] | None = None
    edit: Edit | None = None
    influence: float = 100.0

    def apply(self, reference: ReferenceModel) -> Any:
        """Returns a transformers model with the same weights and this one wrong."""
        if self.fields is not None:
            config = {**reference.case.config, **self.fields}
            model = build_model(config, reference.case.architecture)
            model.load_state_dict(reference.model.state_dict())
            return model
        model = copy.deepcopy(reference.model)
        self.edit(model)
        return model


def mutations(reference: ReferenceModel) -> list[Mutation]:
    """Lists every wrong that can be done to this model."""
    case = reference.case
    found = [*_scalars(case), *_rope(case), *_windows(case), *_experts(case)]
    found += [*_norms(reference.model), *_attention(reference.model), *_mlp(reference.model)]
    return [*found, *_biases(reference.model)]


_SCALED_FIELDS = {
    "rms_norm_eps": 1.5,
    "scale_emb": 1.03,
    "scale_depth": 1.03,
    "embedding_multiplier": 1.03,
    "residual_multiplier": 1.03,
    "attention_multiplier": 1.03,
    "logits_scaling": 1.03,
    "final_logit_softcapping": 1.03,
}


def _scalars(case: ReferenceCase) -> Iterator[Mutation]:
    for name, factor in _SCALED_FIELDS.items():
        if case.config.get(name) is not None:
            yield Mutation(name, {name: case.config[name] * factor})
    for name in ("dim_model_base", "query_pre_attn_scalar"):
        if name in case.config:
            yield Mutation(name, {name: case.config[name] + 1})
    if "hidden_act" in case.config:
        yield Mutation("hidden_act", {"hidden_act": "gelu"})
    if "hidden_activation" in case.config:
        # The exact curve and its tanh form are never further apart than 5e-4.
        yield Mutation("hidden_activation", {"hidden_activation": "gelu"}, influence=20.0)


_ROPE_FACTORS = {
    "rope_theta": 1.1,
    "factor": 1.1,
    "low_freq_factor": 1.2,
    "high_freq_factor": 1.2,
    "original_max_position_embeddings": 1.5,
    "attention_factor": 1.03,
    "beta_fast": 1.5,
    "beta_slow": 1.5,
    "mscale": 1.2,
    "mscale_all_dim": 1.2,
    "short_factor": 1.1,
    "long_factor": 1.1,
    "partial_rotary_factor": 0.75,
}


def _rope(case: ReferenceCase) -> Iterator[Mutation]:
    for name in ("rope_theta", "rope_local_base_freq", "partial_rotary_factor"):
        if name in case.config:
            yield Mutation(name, {name: case.config[name] * _ROPE_FACTORS.get(name, 1.1)})
    for block in ("rope_scaling", "rope_parameters"):
        for name, value in case.config.get(block, {}).items():
            changed = _scaled(name, value)
            if changed is not None and not _unused_factor(case, name):
                yield Mutation(f"{block}.{name}", {block: {**case.config[block], name: changed}})
        if block in case.config:
            plain = {"rope_type": "default", "rope_theta": case.config.get("rope_theta")}
            theta = case.config[block].get("rope_theta", plain["rope_theta"])
            yield Mutation(f"{block} ignored", {block: {**plain, "rope_theta": theta}})


def _scaled(name: str, value: Any) -> Any:
    factor = _ROPE_FACTORS.get(name)
    if factor is None:
        return None
    if isinstance(value, list):
        return [element * factor for element in value]
    return round(value * factor) if isinstance(value, int) else value * factor


def _unused_factor(case: ReferenceCase, name: str) -> bool:
    """Of longrope's two lists, only one is in use at a time."""
    original = case.config.get("original_max_position_embeddings", 0)
    original = original or case.config.get("rope_scaling", {}).get(
        "original_max_position_embeddings", 0
    )
    return name == ("short_factor" if case.prompt_lens[0] > original else "long_factor")


def _windows(case: ReferenceCase) -> Iterator[Mutation]:
    window = case.config.get("sliding_window")
    if window is None:
        return
    if not case.config.get("use_sliding_window", True):
        yield Mutation("use_sliding_window", {"use_sliding_window": True})
        return
    for size in (window - 1, window + 1):
        if size > 0:
            yield Mutation(f"window {size}", {"sliding_window": size})
    if "layer_types" in case.config and len(set(case.config["layer_types"])) > 1:
        kinds = case.config["layer_types"]
        yield Mutation("layer_types", {"layer_types": [*kinds[1:], kinds[0]]})
    if "max_window_layers" in case.config:
        later = case.config["max_window_layers"] + 1
        yield Mutation("max_window_layers", {"max_window_layers": later})


def _experts(case: ReferenceCase) -> Iterator[Mutation]:
    if "num_experts" in case.config:
        fewer = case.config["num_experts_per_tok"] - 1
        yield Mutation("num_experts_per_tok", {"num_experts_per_tok": fewer})
        yield Mutation("norm_topk_prob", {"norm_topk_prob": not case.config["norm_topk_prob"]})


def _kinds(model: Any, part: str) -> list[str]:
    """Names of modules containing ``part``, without the layer number."""
    names = [name for name, _ in model.named_modules() if part in name]
    return sorted({_kind(name) for name in names})


def _kind(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("model", "layers")).lstrip(
        "0123456789."
    )


def _each(model: Any, kind: str) -> Iterator[Any]:
    return (module for name, module in model.named_modules() if _kind(name) == kind)


def _norms(model: Any) -> Iterator[Mutation]:
    for kind in _kinds(model, "norm"):
        yield Mutation(f"{kind} eps", edit=lambda copied, kind=kind: _grow_eps(copied, kind))
        yield Mutation(f"{kind} dropped", edit=lambda copied, kind=kind: _drop(copied, kind))
        yield Mutation(f"{kind} unweighted", edit=lambda copied, kind=kind: _unweight(copied, kind))


def _grow_eps(model: Any, kind: str) -> None:
    for module in _each(model, kind):
        name = "eps" if hasattr(module, "eps") else "variance_epsilon"
        setattr(module, name, getattr(module, name) * 1.5)


def _drop(model: Any, kind: str) -> None:
    for module in _each(model, kind):
        module.forward = lambda states: states


def _unweight(model: Any, kind: str) -> None:
    neutral = 0.0 if model.config.model_type == "gemma3_text" else 1.0
    for module in _each(model, kind):
        module.weight.data.fill_(neutral)


def _attention(model: Any) -> Iterator[Mutation]:
    yield Mutation("attention scale", edit=_grow_scale)
    if model.config.num_key_value_heads not in (1, model.config.num_attention_heads):
        yield Mutation("query heads dealt to key heads in turn", edit=_deal_heads)


def _grow_scale(model: Any) -> None:
    for layer in model.model.layers:
        layer.self_attn.scaling *= 1.03


def _deal_heads(model: Any) -> None:
    """Reorders query heads as if head i used key head i mod num_key_value_heads."""
    groups, heads = model.config.num_key_value_heads, model.config.num_attention_heads
    order = [i for group in range(groups) for i in range(group, heads, groups)]
    for layer in model.model.layers:
        attention = layer.self_attn
        rows = torch.arange(heads * attention.head_dim).view(heads, -1)[order].flatten()
        projection = getattr(attention, "q_proj", None) or attention.qkv_proj
        for parameter in projection.parameters():
            parameter.data[: len(rows)] = parameter.data[rows]
        attention.o_proj.weight.data = attention.o_proj.weight.data[:, rows]


def _mlp(model: Any) -> Iterator[Mutation]:
    yield Mutation("gate and up swapped", edit=_swap_gate_up)


def _swap_gate_up(model: Any) -> None:
    for layer in model.model.layers:
        mlp = getattr(layer.mlp, "experts", layer.mlp)
        if hasattr(mlp, "gate_up_proj"):
            fused = getattr(mlp.gate_up_proj, "weight", mlp.gate_up_proj)
            axis = fused.ndim - 2
            fused.data = torch.cat(fused.data.chunk(2, dim=axis)[::-1], dim=axis)
        else:
            mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj


def _biases(model: Any) -> Iterator[Mutation]:
    kinds = {_kind(name) for name, _ in model.named_parameters() if name.endswith(".bias")}
    for kind in sorted(kinds):
        yield Mutation(
            f"{kind} dropped", edit=lambda copied, kind=kind: _zero_parameters(copied, kind)
        )


def _zero_parameters(model: Any, kind: str) -> None:
    for name, parameter in model.named_parameters():
        if _kind(name) == kind:
            parameter.data.zero_()
