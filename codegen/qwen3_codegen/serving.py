"""A checkpoint made ready to be served: what the serving process knows, what the engine's loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from qwen3_codegen.hub import locate_checkpoint
from qwen3_codegen.llm import LLM
from qwen3_codegen.llm_arguments import field_names, folders_of_ops, overrides_as_text
from qwen3_codegen.own_ops import load_ops
from qwen3_codegen.spec.catalog import load_checkpoint_model
from qwen3_codegen.spec.model import ModelSpec
from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.engine.batch import FloatRows
from qwen3_runtime.engine.compiled import CompiledEngine
from qwen3_runtime.generation_config import all_end_token_ids, default_sampling_params
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.serving import LoadedEngine
from qwen3_runtime.serving.messages import EngineFacts
from qwen3_runtime.structured import LlguidanceCompiler
from qwen3_runtime.text import Tokenizer, load_tokenizer

__all__ = ["ModelLoader", "PreparedModel", "prepare_model"]


@dataclass(frozen=True, slots=True)
class ModelLoader:
    """Loads a checkpoint in the engine's process, compiling its engine on first use.

    Args:
        path: The checkpoint, already on this machine.
        options: Keyword arguments of ``LLM``.
        pooling: How prompts are made into vectors; None makes none.
    """

    path: Path
    options: Mapping[str, Any]
    pooling: str | None = None

    def __call__(self, notify: Callable[[str], None]) -> LoadedEngine:
        """See ``EngineLoader``."""
        llm = LLM(self.path, **self.options)
        engine = llm.engine
        description: dict[str, object] = {"engine": "interpreter"}
        kv_cache_bytes = 0
        if isinstance(engine, CompiledEngine):
            description = _described(engine)
            kv_cache_bytes = engine.capacity.kv_cache_bytes
        if self.pooling is not None:
            notify("preparing embeddings")
            llm.embed([[0]], pooling=self.pooling)
        facts = EngineFacts(
            can_embed=self.pooling is not None,
            max_model_len=engine.max_model_len,
            max_num_seqs=engine.max_num_seqs,
            vocab_size=engine.vocab_size,
            num_blocks=engine.num_blocks,
            kv_cache_bytes=kv_cache_bytes,
            description=description,
            notes=llm.notes,
        )
        compiler = None
        if llm.tokenizer is not None:
            notify("reading the vocabulary for grammars")
            compiler = LlguidanceCompiler(llm.tokenizer, engine.vocab_size)
        return LoadedEngine(
            engine=engine,
            facts=facts,
            compile_grammar=compiler,
            embed=partial(_embed, llm, self.pooling) if self.pooling is not None else None,
        )


def _embed(llm: LLM, pooling: str, token_ids: Sequence[int]) -> FloatRows:
    (vector,) = llm.embed([list(token_ids)], pooling=pooling)
    return vector


def _described(engine: CompiledEngine) -> dict[str, object]:
    """What an engine's manifest says to people."""
    manifest = engine.manifest
    names = ("model", "architecture", "device", "infinicore", "dtype", "num_layers", "memory")
    ops = manifest["ops"]
    return {
        "engine": "compiled",
        **{name: manifest[name] for name in names},
        "ops": ops,
        "max_num_batched_tokens": engine.max_num_batched_tokens,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedModel:
    """What the serving process knows before an engine is there."""

    spec: ModelSpec
    loader: ModelLoader
    names: tuple[str, ...]
    """The spec's, the folder's and the architecture's: any of them may be asked for."""
    tokenizer: Tokenizer | None
    default_params: SamplingParams
    default_params_without_thinking: SamplingParams
    end_token_ids: frozenset[int]


def prepare_model(
    model: str,
    options: Mapping[str, Any],
    served_names: Sequence[str] = (),
    pooling: str | None = None,
) -> PreparedModel:
    """Reads all that is small of a checkpoint; a mistake in it is said before anything is built.

    Args:
        model: Hugging Face folder, GGUF file, or hub id.
        options: Keyword arguments of ``LLM``.
        served_names: Further names the model is to serve under; they go first.
        pooling: How prompts are made into vectors; None makes none.

    Raises:
        CodegenError: The configuration does not fit.
        RuntimeFault: The checkpoint's files do not fit.
    """
    located = locate_checkpoint(model, show_progress=True)
    spec = load_checkpoint_model(
        str(located.path),
        overrides=overrides_as_text(options.get("overrides")),
        ignore_config_keys=field_names(options.get("ignore_config_keys", ())),
        architecture=options.get("arch"),
        name=located.name,
        own_functions=load_ops(folders_of_ops(options.get("ops", ()))),
    )
    checkpoint = open_checkpoint(located.path)
    try:
        tokenizer = load_tokenizer(checkpoint)
        # Answers carry these names, so a path of this machine is none.
        path = located.path
        folder = path.stem if path.is_file() else located.name or path.resolve().name
        hub_id = model if located.name is not None else ""
        names = (*served_names, spec.name, folder, spec.architecture.name, hub_id)
        params = default_sampling_params(checkpoint, spec.chat.sampling)
        return PreparedModel(
            spec=spec,
            loader=ModelLoader(located.path, options, pooling),
            names=tuple(dict.fromkeys(name for name in names if name)),
            tokenizer=tokenizer,
            default_params=params,
            default_params_without_thinking=_without_thinking(params, spec),
            end_token_ids=all_end_token_ids(checkpoint, tokenizer),
        )
    finally:
        checkpoint.close()


def _without_thinking(params: SamplingParams, spec: ModelSpec) -> SamplingParams:
    """A generation_config speaks of the mode a model starts in; greedy is greedy in both."""
    differing: dict[str, Any] = dict(spec.chat.sampling_without_thinking)
    return params if params.temperature == 0.0 else replace(params, **differing)
