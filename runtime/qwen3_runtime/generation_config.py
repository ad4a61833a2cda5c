"""What a checkpoint's generation_config.json says about sampling and about ending."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qwen3_runtime.checkpoint.base import Checkpoint
from qwen3_runtime.errors import CheckpointError, RequestError
from qwen3_runtime.sampling.params import SamplingParams

if TYPE_CHECKING:  # the tokenizer's module imports this one
    from qwen3_runtime.text import Tokenizer

__all__ = [
    "all_end_token_ids",
    "default_sampling_params",
    "end_token_ids",
    "sampling_notes",
]

_RECOMMENDED = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
"""Parameters that a model's makers may recommend."""
_NOT_HONOURED = {
    "typical_p": 1.0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "penalty_alpha": 0.0,
}
"""Recommendations that sampling does not know, with the value at which they change nothing."""


def default_sampling_params(
    checkpoint: Checkpoint, recommended: Mapping[str, object] | None = None
) -> SamplingParams:
    """Returns the sampling parameters the model's makers recommend.

    ``do_sample: false`` means greedy, whatever else is said; what neither the checkpoint nor
    ``recommended`` says stays at ``SamplingParams``' own defaults.

    Args:
        checkpoint: Its generation_config counts first.
        recommended: What else is known of the model, by parameter.

    Raises:
        CheckpointError: A recommended value is out of range.
    """
    config = {**(recommended or {}), **checkpoint.generation_config}
    given: dict[str, Any] = {
        name: config[name] for name in _RECOMMENDED if config.get(name) is not None
    }
    if config.get("do_sample") is False:
        given["temperature"] = 0.0
    try:
        return SamplingParams(**given)
    except RequestError as error:
        raise CheckpointError(
            f"generation_config: {error.message}",
            where=_place(checkpoint),
            got=error.got,
            expected=error.expected,
            hint="correct it there; nothing else of the checkpoint depends on it",
        ) from None


def sampling_notes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Returns a line for every recommendation of the model's makers that has no effect here."""
    config = checkpoint.generation_config
    return tuple(
        f"generation_config: {name} {config[name]} has no effect, sampling does not know it"
        for name, neutral in _NOT_HONOURED.items()
        if config.get(name) not in (None, neutral)
    )


def end_token_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Returns every end token that generation_config.json and config.json name, each once.

    Raises:
        CheckpointError: ``eos_token_id`` is neither a token id nor a list of them.
    """
    ids: list[int] = []
    for source in (checkpoint.generation_config, checkpoint.config):
        value = source.get("eos_token_id")
        values: list[Any] = value if isinstance(value, list) else [value]
        if value is None:
            continue
        if not all(type(token_id) is int and token_id >= 0 for token_id in values):
            raise CheckpointError(
                "'eos_token_id' is invalid",
                where=_place(checkpoint),
                got=repr(value)[:200],
                expected="a token id or a list of token ids",
            )
        ids += values
    return tuple(dict.fromkeys(ids))


def all_end_token_ids(checkpoint: Checkpoint, tokenizer: Tokenizer | None) -> frozenset[int]:
    """Returns the end tokens that a checkpoint's files and its tokenizer name.

    Raises:
        CheckpointError: ``eos_token_id`` is neither a token id nor a list of them.
    """
    own = () if tokenizer is None else tokenizer.eos_token_ids
    return frozenset((*end_token_ids(checkpoint), *own))


def _place(checkpoint: Checkpoint) -> object:
    path = checkpoint.path
    return path / "generation_config.json" if path.is_dir() else path
