"""What each GGUF architecture is called in Hugging Face's terms, and what conversion changed.

Source: llama.cpp's converters (conversion/*.py) and the gguf package's tensor names. An
architecture is listed only when it is known what must be undone; a row is all it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ARCHITECTURES", "GLOBAL_NAMES", "GgufArchitecture"]

GLOBAL_NAMES: Mapping[str, str] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
"""GGUF stems outside the layers; ``.weight`` or ``.bias`` follows."""

_ATTENTION: Mapping[str, str] = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_MLP: Mapping[str, str] = {
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_QK_NORM: Mapping[str, str] = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_POST_NORMS: Mapping[str, str] = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_LLAMA: Mapping[str, str] = {**_ATTENTION, **_MLP}


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufArchitecture:
    """How to read one ``general.architecture`` as Hugging Face's model."""

    model_type: str
    """Hugging Face's ``model_type``."""
    class_name: str
    """Hugging Face's class, the entry of ``architectures``."""
    layer_names: Mapping[str, str]
    """GGUF stem in ``blk.N.`` to the module path in ``model.layers.N.``."""
    expert_names: Mapping[str, str] = field(default_factory=dict)
    """GGUF stem of stacked experts to the module path, ``{expert}`` left in."""
    permutes_qk: bool = False
    """Whether conversion reordered q and k rows from half-split to interleaved."""
    norm_offset: float = 0.0
    """What conversion added to every norm weight."""
    constants: Mapping[str, object] = field(default_factory=lambda: {"hidden_act": "silu"})
    """Config fields that the architecture fixes and the header does not state."""


ARCHITECTURES: Mapping[str, GgufArchitecture] = {
    "llama": GgufArchitecture(
        model_type="llama",
        class_name="LlamaForCausalLM",
        layer_names=_LLAMA,
        permutes_qk=True,
    ),
    "qwen2": GgufArchitecture(
        model_type="qwen2", class_name="Qwen2ForCausalLM", layer_names=_LLAMA
    ),
    "qwen3": GgufArchitecture(
        model_type="qwen3", class_name="Qwen3ForCausalLM", layer_names={**_LLAMA, **_QK_NORM}
    ),
    "qwen3moe": GgufArchitecture(
        model_type="qwen3_moe",
        class_name="Qwen3MoeForCausalLM",
        layer_names={**_LLAMA, **_QK_NORM, "ffn_gate_inp": "mlp.gate"},
        expert_names={
            "ffn_gate_exps": "mlp.experts.{expert}.gate_proj",
            "ffn_up_exps": "mlp.experts.{expert}.up_proj",
            "ffn_down_exps": "mlp.experts.{expert}.down_proj",
        },
        constants={
            "hidden_act": "silu",
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        },
    ),
    "minicpm": GgufArchitecture(
        model_type="minicpm",
        class_name="MiniCPMForCausalLM",
        layer_names=_LLAMA,
        permutes_qk=True,
    ),
    "granite": GgufArchitecture(
        model_type="granite",
        class_name="GraniteForCausalLM",
        layer_names=_LLAMA,
        permutes_qk=True,
    ),
    "olmo2": GgufArchitecture(
        model_type="olmo2",
        class_name="Olmo2ForCausalLM",
        layer_names={
            **{stem: name for stem, name in _LLAMA.items() if not stem.endswith("norm")},
            **_QK_NORM,
            **_POST_NORMS,
        },
    ),
    "gemma3": GgufArchitecture(
        model_type="gemma3_text",
        class_name="Gemma3ForCausalLM",
        layer_names={
            **_LLAMA,
            **_QK_NORM,
            **_POST_NORMS,
            "ffn_norm": "pre_feedforward_layernorm",
        },
        norm_offset=1.0,
        constants={"hidden_activation": "gelu_pytorch_tanh"},
    ),
    "phi3": GgufArchitecture(
        model_type="phi3",
        class_name="Phi3ForCausalLM",
        layer_names={
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
    ),
}
"""Rows by ``general.architecture``."""
