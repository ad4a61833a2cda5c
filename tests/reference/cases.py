"""The table of hard little models that engines are compared on.

``config`` is config.json as a publisher would write it, except that ``architectures``,
``model_type`` and the dtype field are added when it is saved. Every size is odd where the format
allows it, so that no two dimensions of a model can be mixed up unnoticed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ODD_VOCAB = 331


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCase:
    """One model: what its config.json says and how its weights are drawn.

    Attributes:
        id: Name in test ids and error messages.
        architecture: Name of our architecture file.
        config: Fields of config.json.
        seed: Seed of weights and prompts, chosen so that 64 greedy steps have a clear argmax.
        prompt_lens: Tokens of its prompts; the first is several windows long where there is one.
        checkpoint_dtype: ``float32``, or what all but norms, which stay in float32, is stored in:
            ``bfloat16`` or ``float16``.
        saved_by_transformers: config.json as transformers 5 writes it, instead of ``config``.
        max_shard_size: Splits the checkpoint into several files with an index.
        gains: Overrides of ``models.GAINS``, the spread of groups of weights.
    """

    id: str
    architecture: str
    config: Mapping[str, Any]
    seed: int = 0
    prompt_lens: tuple[int, ...] = (24, 7, 1)
    checkpoint_dtype: str = "float32"
    saved_by_transformers: bool = False
    max_shard_size: str | None = None
    gains: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.id


def _config(**fields: Any) -> dict[str, Any]:
    base = {
        "vocab_size": ODD_VOCAB,
        "intermediate_size": 75,
        "num_hidden_layers": 3,
        "max_position_embeddings": 512,
        "rms_norm_eps": 0.03,
        "rope_theta": 431.7,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if "rope_parameters" in fields:
        del base["rope_theta"]
    return base | fields


def _heads(hidden: int, heads: int, kv_heads: int, head_dim: int | None = None) -> dict[str, int]:
    sizes = {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }
    return sizes if head_dim is None else sizes | {"head_dim": head_dim}


def _qwen3(id: str, sizes: Mapping[str, int] | None = None, **fields: Any) -> ReferenceCase:
    case_fields = {name: fields.pop(name) for name in list(fields) if name in _CASE_FIELDS}
    sizes = sizes or _heads(52, 4, 2, 14)
    config = _config(**{"attention_bias": False, **sizes, **fields})
    return ReferenceCase(id=id, architecture="qwen3", config=config, **case_fields)


_CASE_FIELDS = frozenset(ReferenceCase.__dataclass_fields__) - {"id", "architecture", "config"}
_SLIDING, _FULL = "sliding_attention", "full_attention"


def _window(size: int, *kinds: str) -> dict[str, Any]:
    return {
        "use_sliding_window": True,
        "sliding_window": size,
        "layer_types": list(kinds),
        "num_hidden_layers": len(kinds),
    }


QWEN3 = (
    _qwen3("qwen3-gqa-1", _heads(42, 3, 3, 16)),
    _qwen3("qwen3-gqa-2-tied", _heads(46, 4, 2, 10), tie_word_embeddings=True),
    _qwen3("qwen3-gqa-4", _heads(54, 8, 2, 6), rope_theta=97.3),
    _qwen3("qwen3-gqa-7-tied", _heads(58, 7, 1, 18), tie_word_embeddings=True),
    _qwen3("qwen3-gqa-7x2", _heads(39, 14, 2, 8), vocab_size=257),
    _qwen3("qwen3-head-dim-64", _heads(66, 4, 2, 64), rope_theta=8123.0),
    _qwen3("qwen3-head-dim-128", _heads(70, 2, 1, 128), rope_theta=10007.0, rms_norm_eps=0.1),
    _qwen3("qwen3-attention-bias", attention_bias=True),
    _qwen3("qwen3-window-1", **_window(1, _SLIDING, _FULL, _SLIDING), prompt_lens=(29, 9, 1)),
    _qwen3(
        "qwen3-window-3", **_window(3, _FULL, _SLIDING, _FULL, _SLIDING), prompt_lens=(31, 9, 1)
    ),
    _qwen3("qwen3-window-8", **_window(8, _SLIDING, _SLIDING, _FULL), prompt_lens=(43, 9, 1)),
    _qwen3("qwen3-all-sliding", **_window(8, _SLIDING, _SLIDING), prompt_lens=(37, 9, 1)),
    _qwen3(
        "qwen3-max-window-layers",
        use_sliding_window=True,
        sliding_window=5,
        max_window_layers=1,
        prompt_lens=(33, 9, 1),
    ),
    _qwen3("qwen3-window-off", use_sliding_window=False, sliding_window=4, max_window_layers=1),
    _qwen3("qwen3-saved-by-transformers", saved_by_transformers=True),
    _qwen3("qwen3-sharded", max_shard_size="40KB"),
    _qwen3("qwen3-bfloat16", checkpoint_dtype="bfloat16"),
)

_YARN = {"rope_type": "yarn", "factor": 3.5, "original_max_position_embeddings": 48}
_YARN_MAX = {"max_position_embeddings": 168}  # factor times the original, or transformers warns
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 5.0,
    "low_freq_factor": 1.5,
    "high_freq_factor": 7.0,
    "original_max_position_embeddings": 96,
}

ROPE = (
    _qwen3(
        "qwen3-yarn",
        _heads(52, 4, 2, 32),
        **_YARN_MAX,
        rope_scaling={**_YARN, "beta_fast": 5.0, "beta_slow": 0.6},
        rope_theta=211.0,
    ),
    _qwen3(
        "qwen3-yarn-attention-factor",
        _heads(52, 4, 2, 32),
        **_YARN_MAX,
        rope_parameters={**_YARN, "rope_theta": 211.0, "attention_factor": 0.9},
    ),
    _qwen3(
        "qwen3-yarn-mscale",
        _heads(52, 4, 2, 32),
        **_YARN_MAX,
        rope_parameters={
            **_YARN,
            "rope_theta": 211.0,
            "beta_fast": 5.0,
            "beta_slow": 0.6,
            "mscale": 1.3,
            "mscale_all_dim": 0.6,
            "truncate": False,
        },
    ),
    _qwen3("qwen3-linear", rope_scaling={"type": "linear", "factor": 2.7}),
    _qwen3("qwen3-llama3", _heads(52, 4, 2, 32), rope_parameters={**_LLAMA3, "rope_theta": 173.0}),
)


def _llama(id: str, sizes: Mapping[str, int], **fields: Any) -> ReferenceCase:
    biases = {"attention_bias": False, "mlp_bias": False}
    config = _config(**{**biases, "pretraining_tp": 1, **sizes, **fields})
    return ReferenceCase(id=id, architecture="llama", config=config)


LLAMA = (
    _llama("llama", _heads(48, 4, 2)),
    _llama("llama-tied", _heads(60, 6, 3), tie_word_embeddings=True),
    _llama("llama-attention-bias", _heads(48, 4, 2), attention_bias=True),
    _llama("llama-mlp-bias", _heads(48, 4, 4), mlp_bias=True),
    _llama("llama-both-biases", _heads(48, 4, 1), attention_bias=True, mlp_bias=True),
    _llama("llama-head-dim", _heads(44, 4, 2, 22)),
    _llama("llama-yarn", _heads(56, 2, 1, 32), **_YARN_MAX, rope_theta=211.0, rope_scaling=_YARN),
    _llama("llama-llama3", _heads(56, 2, 1, 32), rope_theta=173.0, rope_scaling=_LLAMA3),
    _llama("llama-linear", _heads(48, 4, 2), rope_scaling={"rope_type": "linear", "factor": 2.7}),
)


def _qwen2(
    id: str, sizes: Mapping[str, int], prompt_lens: tuple[int, ...] = (24, 7, 1), **fields: Any
) -> ReferenceCase:
    config = _config(**{**sizes, **fields})
    return ReferenceCase(id=id, architecture="qwen2", config=config, prompt_lens=prompt_lens)


QWEN2 = (
    _qwen2(
        "qwen2", _heads(56, 4, 2), use_sliding_window=False, sliding_window=3, max_window_layers=1
    ),
    _qwen2("qwen2-tied", _heads(56, 7, 1), tie_word_embeddings=True),
    _qwen2(
        "qwen2-max-window-layers",
        _heads(56, 4, 2),
        prompt_lens=(33, 9, 1),
        use_sliding_window=True,
        sliding_window=6,
        max_window_layers=2,
        num_hidden_layers=4,
    ),
)


def _jiuge(id: str, model_type: str, sizes: Mapping[str, int], **fields: Any) -> ReferenceCase:
    scales = {"scale_emb": 3.3, "scale_depth": 1.7, "dim_model_base": 19}
    config = _config(model_type=model_type, **{**sizes, **scales, **fields})
    gains = {"tied": 0.09, "embedding": 0.08}  # scale_emb multiplies what enters the layers
    return ReferenceCase(id=id, architecture="jiuge", config=config, gains=gains)


def _longrope(head_dim: int, original: int) -> dict[str, Any]:
    pairs = head_dim // 2
    return {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.07 * pair for pair in range(pairs)],
        "long_factor": [1.3 + 0.31 * pair for pair in range(pairs)],
        "original_max_position_embeddings": original,
    }


JIUGE = (
    _jiuge("jiuge-minicpm", "minicpm", _heads(56, 4, 4)),
    _jiuge("jiuge-fm9g-tied", "fm9g", _heads(48, 4, 2), tie_word_embeddings=True),
    _jiuge(
        "jiuge-longrope",
        "minicpm",
        _heads(48, 4, 2),
        rope_scaling=_longrope(12, 400),
    ),
)

GRANITE = (
    ReferenceCase(
        id="granite",
        architecture="granite",
        config=_config(
            attention_bias=False,
            mlp_bias=False,
            embedding_multiplier=2.7,
            residual_multiplier=0.63,
            attention_multiplier=0.31,
            logits_scaling=1.9,
            **_heads(48, 4, 2),
        ),
    ),
)

# Its queries and keys come from the residual stream without a norm before them, so eps counts more.
_OLMO2_GAINS = {"score": 7.0}

OLMO2 = (
    ReferenceCase(
        id="olmo2",
        architecture="olmo2",
        config=_config(attention_bias=False, pad_token_id=1, rms_norm_eps=0.08, **_heads(56, 4, 2)),
        gains=_OLMO2_GAINS,
    ),
    ReferenceCase(
        id="olmo2-tied",
        architecture="olmo2",
        config=_config(
            attention_bias=False,
            pad_token_id=1,
            rms_norm_eps=0.08,
            tie_word_embeddings=True,
            **_heads(54, 9, 9),
        ),
        gains=_OLMO2_GAINS,
    ),
)


def _gemma3(id: str, **fields: Any) -> ReferenceCase:
    config = _config(
        attention_bias=False,
        hidden_activation="gelu_pytorch_tanh",
        rms_norm_eps=0.1,
        query_pre_attn_scalar=11,
        sliding_window=5,
        rope_local_base_freq=37.9,
        pad_token_id=0,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        **_heads(48, 4, 2, 14),
    )
    del config["hidden_act"]
    config |= {"num_hidden_layers": 4, "tie_word_embeddings": True, **fields}
    # The tied embedding is scaled by sqrt(hidden_size) on its way in, not on its way out.
    gains = {"tied": 0.04, "final_norm": 9.0}
    return ReferenceCase(
        id=id, architecture="gemma3_text", config=config, prompt_lens=(33, 9, 1), gains=gains
    )


GEMMA3 = (
    _gemma3("gemma3", sliding_window_pattern=3),
    _gemma3(
        "gemma3-softcap",
        layer_types=[_FULL, _SLIDING, _SLIDING, _FULL],
        final_logit_softcapping=13.0,
    ),
    _gemma3(
        "gemma3-linear",
        layer_types=[_SLIDING, _FULL, _SLIDING, _FULL],
        rope_scaling={"rope_type": "linear", "factor": 2.3},
    ),
)


def _phi3(id: str, prompt_lens: tuple[int, ...] = (24, 7, 1), **fields: Any) -> ReferenceCase:
    config = _config(
        pad_token_id=0,
        sliding_window=None,
        original_max_position_embeddings=512,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        **_heads(56, 4, 2),
    )
    return ReferenceCase(
        id=id, architecture="phi3", config=config | fields, prompt_lens=prompt_lens
    )


def _phi3_longrope(id: str, original: int, prompt_lens: tuple[int, ...]) -> ReferenceCase:
    scaling = _longrope(14, original)
    del scaling["original_max_position_embeddings"]
    return _phi3(id, prompt_lens, original_max_position_embeddings=original, rope_scaling=scaling)


PHI3 = (
    _phi3("phi3"),
    _phi3("phi3-window", prompt_lens=(33, 9, 1), sliding_window=6),
    _phi3("phi3-partial-rotary", partial_rotary_factor=0.75, hidden_size=64),
    # All positions of the short case stay below the original length, all steps of the long case
    # above it: transformers switches factors per call, an engine when it is loaded.
    _phi3_longrope("phi3-longrope-short", original=300, prompt_lens=(24, 7, 1)),
    _phi3_longrope("phi3-longrope-long", original=20, prompt_lens=(24, 37, 21)),
)


def _moe(id: str, **fields: Any) -> ReferenceCase:
    config = _config(
        attention_bias=False,
        num_experts=5,
        num_experts_per_tok=2,
        moe_intermediate_size=26,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        router_aux_loss_coef=0.001,
        output_router_logits=False,
        **_heads(52, 4, 2, 14),
    )
    return ReferenceCase(id=id, architecture="qwen3_moe", config=config | fields)


MOE = (
    _moe("qwen3-moe"),
    _moe("qwen3-moe-mixed", norm_topk_prob=False, mlp_only_layers=[1], num_experts_per_tok=3),
)

_SEEDS = {
    "qwen3-gqa-1": 3,
    "qwen3-gqa-4": 2,
    "qwen3-gqa-7x2": 6,
    "qwen3-head-dim-128": 1,
    "qwen3-attention-bias": 2,
    "qwen3-window-1": 1,
    "qwen3-window-3": 2,
    "qwen3-window-8": 1,
    "qwen3-window-off": 1,
    "qwen3-saved-by-transformers": 1,
    "qwen3-sharded": 1,
    "qwen3-bfloat16": 4,
    "qwen3-yarn": 2,
    "qwen3-linear": 2,
    "llama-tied": 4,
    "llama-head-dim": 1,
    "qwen2": 2,
    "qwen2-tied": 2,
    "qwen2-max-window-layers": 5,
    "jiuge-minicpm": 2,
    "jiuge-fm9g-tied": 1,
    "jiuge-longrope": 2,
    "olmo2": 1,
    "olmo2-tied": 1,
    "gemma3": 4,
    "gemma3-softcap": 2,
    "gemma3-linear": 3,
    "phi3": 5,
    "phi3-longrope-long": 1,
    "qwen3-moe": 3,
    "qwen3-moe-mixed": 2,
}
"""The first seed with a clear argmax in all greedy steps and little rounding, where not 0."""

CASES = tuple(
    dataclasses.replace(case, seed=_SEEDS.get(case.id, 0))
    for case in (*QWEN3, *ROPE, *LLAMA, *QWEN2, *JIUGE, *GRANITE, *OLMO2, *GEMMA3, *PHI3, *MOE)
)

_BY_ID = {case.id: case for case in CASES}


def case_named(id: str) -> ReferenceCase:
    """Returns the case of that id; KeyError names the id that does not exist."""
    return _BY_ID[id]


def stored_in(case: ReferenceCase, dtype: str) -> ReferenceCase:
    """Returns a case with weights rounded to ``dtype`` and stored in it, as publishers do."""
    return dataclasses.replace(case, id=f"{case.id}-in-{dtype}", checkpoint_dtype=dtype)
