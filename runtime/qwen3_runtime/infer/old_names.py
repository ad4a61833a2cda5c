"""What InfiniCore-Infer has and this has not, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from qwen3_runtime.errors import RequestError

__all__ = ["hint_for", "refusing", "sampling_names"]

_SPECS = "weight names and sizes are in modelspecs/architectures/*.yaml"
_NO_C_CALLS = "the engine is compiled per model; in C it is qwen3_engine.h, beside the built engine"
_GONE = {
    "LlamaWeightsNaming": _SPECS,
    "Qwen3WeightsNaming": _SPECS,
    "JiugeMetaFromLlama": _SPECS,
    "Qwen3MetaFromConfig": _SPECS,
    "JiugeWeightsImpl": "weights are read by qwen3_runtime.checkpoint",
    "Qwen3WeightsImpl": "weights are read by qwen3_runtime.checkpoint",
    "JiugeBatchedTask": "model.batch_infer_one_round takes the list of tasks itself",
    "Qwen3BatchedTask": "model.batch_infer_one_round takes the list of tasks itself",
    "JiugeForCausalLM": "the class is called JiugeForCauslLM, as it always was",
    "KVCachePool": "nothing is needed: the engine shares what prompts begin with, and there may be "
    "any number of caches",
    "DataType": "LLM(..., dtype='float16') and the models' dtype= name it",
    "JiugeMetaCStruct": _NO_C_CALLS,
    "JiugeWeightsCStruct": _NO_C_CALLS,
    "KVCacheCStruct": _NO_C_CALLS,
    "create_jiuge_model": _NO_C_CALLS,
    "destroy_jiuge_model": _NO_C_CALLS,
    "create_kv_cache": "model.create_kv_cache()",
    "drop_kv_cache": "cache.drop(model)",
    "infer_batch": "model.batch_infer_one_round(tasks)",
    "forward_batch": "model.perplexity(sequences), or LLM.logits(prompts)",
    "meta": _SPECS,
    "weights": "they are in the engine",
    "model_instance": "model.destroy_model_instance() ends it; nothing else takes it",
    "config": "qwen3-codegen specs show MODEL, or LLM(...).spec.config",
}
_SAMPLING = {
    **dict.fromkeys(("topp_", "topp", "top_p"), "topp_"),
    **dict.fromkeys(("topk_", "topk", "top_k"), "topk_"),
    **dict.fromkeys(("temperature_", "temperature"), "temperature_"),
}
_INSTEAD = {
    "max_tokens": "max_steps",
    "max_new_tokens": "max_steps",
    "max_length": "max_steps, which counts the answer alone",
    "seed": "LLM.chat with SamplingParams(seed=...)",
    "stop": "LLM.chat with SamplingParams(stop=...)",
    "repetition_penalty": "LLM.chat with SamplingParams(repetition_penalty=...)",
    "stream": "LLM.chat with on_text=",
}


def hint_for(name: str) -> str | None:
    """Returns what to write instead of a name of the old engine; None where it had no such name."""
    hint = _GONE.get(name)
    return None if hint is None else f"'{name}' of InfiniCore-Infer is not here\n  hint:     {hint}"


def refusing(module: str) -> Callable[[str], NoReturn]:
    """Returns the ``__getattr__`` of a module that stands for one of the old engine's.

    It raises ImportError where the old engine had the name, since ``from ... import`` would put a
    message of its own in place of an AttributeError's.
    """

    def refuse(name: str) -> NoReturn:
        said = hint_for(name)
        if said is not None:
            raise ImportError(said)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return refuse


def sampling_names(usual: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Returns sampling parameters by the old names, whichever way they were spelled.

    Args:
        usual: Values of the old names, as given or by default.
        others: What else was given.

    Raises:
        RequestError: A name is unknown, or a parameter was given twice.
    """
    chosen = dict(usual)
    seen: dict[str, str] = {}
    for name, value in others.items():
        if name not in _SAMPLING:
            raise RequestError(
                f"generate has no argument '{name}'",
                expected=", ".join(_SAMPLING),
                hint=_INSTEAD.get(name),
            )
        old = _SAMPLING[name]
        if old in seen:
            raise RequestError("a sampling parameter is given twice", got=f"{seen[old]}, {name}")
        seen[old] = name
        chosen[old] = value
    return chosen
