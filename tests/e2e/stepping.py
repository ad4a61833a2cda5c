"""Drives an engine step by step along token ids that are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np

from qwen3_runtime.engine.batch import Batch, Engine, FloatRows
from qwen3_runtime.engine.scheduler import Scheduler, Sequence


@dataclass(frozen=True, slots=True)
class Arrival:
    """A sequence that is fed its own tokens: a prompt first, then one token a step."""

    token_ids: SequenceOf[int]
    prompt_len: int
    step: int = 0
    """When it arrives."""


@dataclass(frozen=True, slots=True)
class Ride:
    """What came of some arrivals."""

    logits: list[FloatRows]
    """[num_tokens, vocab_size] of each."""
    batches: list[Batch]
    slots: list[set[int]]
    """Slots each sequence was in."""


def ride(engine: Engine, arrivals: SequenceOf[Arrival]) -> Ride:
    """Runs arrivals through the scheduler and collects the logits of every token."""
    scheduler = Scheduler(engine)
    sequences = [
        Sequence(
            list(arrival.token_ids[: arrival.prompt_len]),
            wants_all_logits=True,
            reserved_len=len(arrival.token_ids),
        )
        for arrival in arrivals
    ]
    number = {id(sequence): index for index, sequence in enumerate(sequences)}
    rows: list[list[FloatRows]] = [[] for _ in arrivals]
    slots: list[set[int]] = [set() for _ in arrivals]
    batches: list[Batch] = []
    last_arrival = max(arrival.step for arrival in arrivals)
    while scheduler.has_work or len(batches) <= last_arrival:
        for arrival, sequence in zip(arrivals, sequences, strict=True):
            if arrival.step == len(batches):
                scheduler.add(sequence)
        step = scheduler.schedule()
        batches.append(step.batch)
        logits = engine.forward(step.batch)
        scheduler.advance(step)
        for share in step.shares:
            index = number[id(share.sequence)]
            rows[index].append(logits[share.logit_rows.start : share.logit_rows.stop])
            slots[index].add(share.sequence.slot)
            if share.sequence.num_new_tokens == 0:
                _feed(scheduler, share.sequence, arrivals[index].token_ids)
    return Ride([np.concatenate(parts) for parts in rows], batches, slots)


def _feed(scheduler: Scheduler, sequence: Sequence, token_ids: SequenceOf[int]) -> None:
    known = len(sequence.token_ids)
    if known == len(token_ids):
        scheduler.finish(sequence)
    else:
        sequence.token_ids.append(token_ids[known])
