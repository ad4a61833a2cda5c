"""Logits of every token of some sequences, in as few steps as the engine's limits allow."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Set
from collections.abc import Sequence as SequenceOf

import numpy as np

from qwen3_runtime.engine.batch import Batch, Engine, FloatRows
from qwen3_runtime.engine.scheduler import Scheduler, Sequence
from qwen3_runtime.errors import RequestError


def prompt_list(prompts: object) -> list[object]:
    """Returns the elements of a list of prompts, or of one prompt's token ids.

    Raises:
        RequestError: It is nothing whose elements could be prompts.
    """
    if isinstance(prompts, bytes | bytearray | Mapping | Set) or not isinstance(prompts, Iterable):
        raise RequestError(
            "these are no prompts",
            got=type(prompts).__name__,
            expected="a text, a list of token ids, or a list of such prompts",
        )
    return list(prompts)


def check_token_ids(engine: Engine, token_ids: object, index: int) -> list[int]:
    """Returns token ids as a list of ints that the engine can take.

    Raises:
        RequestError: The prompt is empty, too long, no list of whole numbers, or holds an id
            outside the vocabulary.
    """
    where = f"prompt {index}"
    ids = check_ids(token_ids, engine.vocab_size, where)
    if len(ids) > engine.max_model_len:
        raise RequestError(
            f"maximum context length is {engine.max_model_len} tokens",
            where=where,
            got=f"{len(ids)} tokens",
            hint="a larger max_model_len, or a shorter prompt",
        )
    return ids


def check_ids(token_ids: object, vocab_size: int, where: str) -> list[int]:
    """Returns token ids as a list of ints of a vocabulary, at least one.

    Raises:
        RequestError: They are none; ``where`` names the prompt.
    """
    ids = _whole_numbers(token_ids, where)
    if not ids:
        raise RequestError("a prompt needs at least one token", where=where)
    outside = [token for token in ids if not 0 <= token < vocab_size]
    if outside:
        raise RequestError(
            "a token id is outside the vocabulary",
            where=where,
            got=outside[0],
            expected=f"0 to {vocab_size - 1}",
        )
    return ids


def _whole_numbers(token_ids: object, where: str) -> list[int]:
    """What counts as an int, but for truth values; bytes or a mapping would be a slip, too."""
    if isinstance(token_ids, str | bytes | bytearray | Mapping | Set):
        raise _no_token_ids(token_ids, where)
    try:
        tokens = list(token_ids)  # type: ignore[call-overload] # anything, checked here
        if any(isinstance(token, bool) for token in tokens):
            raise _no_token_ids(token_ids, where)
        return [operator.index(token) for token in tokens]
    except TypeError:
        raise _no_token_ids(token_ids, where) from None


def _no_token_ids(got: object, where: str) -> RequestError:
    return RequestError(
        "a prompt of token ids is a list of whole numbers", where=where, got=repr(got)[:80]
    )


def prompt_logits(engine: Engine, prompts: SequenceOf[SequenceOf[int]]) -> list[FloatRows]:
    """Runs sequences from their start as mixed batches.

    Returns:
        One float32 array ``[num_tokens, vocab_size]`` per sequence.

    Raises:
        RequestError: A prompt cannot be served.
        EngineError: A step failed.
    """
    rows = prompt_rows(engine, prompts, lambda batch: {"logits": engine.forward(batch)})
    return [values["logits"] for values in rows]


def prompt_rows(
    engine: Engine,
    prompts: SequenceOf[SequenceOf[int]],
    run: Callable[[Batch], Mapping[str, FloatRows]],
    *,
    last_only: bool = False,
) -> list[dict[str, FloatRows]]:
    """Runs sequences from their start as mixed batches, every token with its logits.

    Args:
        engine: Whose limits the batches keep.
        prompts: Token ids.
        run: Carries a batch out and returns arrays ``[num_logit_rows, ...]`` by name.
        last_only: Whether only the last token of each sequence has logits, which costs far less
            where the vocabulary is large.

    Returns:
        Per sequence, its rows of each array, over all its steps.

    Raises:
        RequestError: A prompt cannot be served.
    """
    scheduler = Scheduler(engine)
    sequences = [
        Sequence(check_token_ids(engine, prompt, index), wants_all_logits=not last_only)
        for index, prompt in enumerate(prompt_list(prompts))
    ]
    rows: dict[int, dict[str, list[FloatRows]]] = {id(sequence): {} for sequence in sequences}
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.has_work:
        step = scheduler.schedule()
        arrays = run(step.batch)
        for share in step.shares:
            own = slice(share.logit_rows.start, share.logit_rows.stop)
            for name, array in arrays.items():
                rows[id(share.sequence)].setdefault(name, []).append(array[own])
        scheduler.advance(step)
        for share in step.shares:
            if share.sequence.num_new_tokens == 0:
                scheduler.finish(share.sequence)
    return [
        {name: np.concatenate(parts) for name, parts in rows[id(sequence)].items()}
        for sequence in sequences
    ]
