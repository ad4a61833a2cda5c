"""Logits of every token of some sequences, in as few steps as the engine's limits allow."""

from __future__ import annotations

import operator
from collections.abc import Sequence as SequenceOf

import numpy as np

from qwen3_runtime.engine.batch import Engine, FloatRows
from qwen3_runtime.engine.scheduler import Scheduler, Sequence
from qwen3_runtime.errors import RequestError


def check_token_ids(engine: Engine, token_ids: SequenceOf[int], index: int) -> list[int]:
    """Returns token ids as a list of ints that the engine can take.

    Raises:
        RequestError: The prompt is empty, too long, no list of whole numbers, or holds an id
            outside the vocabulary.
    """
    where = f"prompt {index}"
    try:
        ids = [operator.index(token) for token in token_ids]
    except TypeError as error:
        raise RequestError(
            "a prompt of token ids is a list of whole numbers", where=where, got=error
        ) from None
    if not ids:
        raise RequestError("a prompt needs at least one token", where=where)
    if len(ids) > engine.max_model_len:
        raise RequestError(
            f"maximum context length is {engine.max_model_len} tokens",
            where=where,
            got=f"{len(ids)} tokens",
            hint="a larger max_model_len, or a shorter prompt",
        )
    outside = [token for token in ids if not 0 <= token < engine.vocab_size]
    if outside:
        raise RequestError(
            "a token id is outside the vocabulary",
            where=where,
            got=outside[0],
            expected=f"0 to {engine.vocab_size - 1}",
        )
    return ids


def prompt_logits(engine: Engine, prompts: SequenceOf[SequenceOf[int]]) -> list[FloatRows]:
    """Runs sequences from their start as mixed batches.

    Returns:
        One float32 array ``[num_tokens, vocab_size]`` per sequence.

    Raises:
        RequestError: A prompt cannot be served.
        EngineError: A step failed.
    """
    scheduler = Scheduler(engine)
    sequences = [
        Sequence(check_token_ids(engine, prompt, index), wants_all_logits=True)
        for index, prompt in enumerate(prompts)
    ]
    rows: dict[int, list[FloatRows]] = {id(sequence): [] for sequence in sequences}
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.has_work:
        step = scheduler.schedule()
        logits = engine.forward(step.batch)
        for share in step.shares:
            rows[id(share.sequence)].append(logits[share.logit_rows.start : share.logit_rows.stop])
        scheduler.advance(step)
        for share in step.shares:
            if share.sequence.num_new_tokens == 0:
                scheduler.finish(share.sequence)
    return [np.concatenate(rows[id(sequence)]) for sequence in sequences]
