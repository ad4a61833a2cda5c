"""The steps an engine is led through: a prefill, a chunked one mixed with decodes, decodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from qwen3_codegen.verification.measure import Array
from qwen3_runtime.engine.batch import Batch, CachePlaces, Engine
from qwen3_runtime.engine.scheduler import Scheduler
from qwen3_runtime.engine.scheduler import Sequence as Scheduled

__all__ = ["NUM_SEQUENCES", "Played", "Script", "ScriptedSequence", "greedy", "make_script", "play"]

Result = TypeVar("Result")

NUM_SEQUENCES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedSequence:
    """Token ids that are known beforehand: a prompt, then one token a step."""

    token_ids: tuple[int, ...]
    prompt_len: int
    arrives_at: int
    """Step it arrives in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Sequences and the most tokens of a step, which cuts the second prompt in two."""

    sequences: tuple[ScriptedSequence, ...]
    max_num_batched_tokens: int

    @property
    def max_len(self) -> int:
        """Tokens of the longest sequence."""
        return max(len(sequence.token_ids) for sequence in self.sequences)

    @property
    def token_ids(self) -> list[tuple[int, ...]]:
        """All tokens of every sequence."""
        return [sequence.token_ids for sequence in self.sequences]


@dataclass(frozen=True, slots=True)
class Played(Generic[Result]):
    """What an engine made of a script, step by step."""

    batches: tuple[Batch, ...]
    owners: tuple[tuple[int, ...], ...]
    """For every step, whose tokens are packed: indices into the script's sequences."""
    results: tuple[Result, ...]

    def by_sequence(self, rows_of: Callable[[Result], Array]) -> list[Array]:
        """Returns rows ``[num_tokens, ...]`` of every sequence, whichever steps they came in."""
        parts: dict[int, list[Array]] = {}
        for batch, owners, result in zip(self.batches, self.owners, self.results, strict=True):
            ends = np.cumsum(batch.query_lens)[:-1]
            for owner, rows in zip(owners, np.split(rows_of(result), ends), strict=True):
                parts.setdefault(owner, []).append(rows)
        return [np.concatenate(parts[index]) for index in sorted(parts)]

    def slotted(self) -> list[Batch]:
        """Returns the batches for an engine with one slot per sequence, such as the interpreter."""
        return [
            replace(batch, places=(CachePlaces(slots=np.array(owners, np.int32)),))
            for batch, owners in zip(self.batches, self.owners, strict=True)
        ]


def make_script(vocab_size: int, prompt_len: int, seed: int) -> Script:
    """Returns random sequences that cover a prefill, a chunk, a mixed batch and decodes.

    Args:
        vocab_size: Token ids are drawn from it.
        prompt_len: Tokens of the first prompt; the second is a little longer than fits a step.
        seed: Of the draw.
    """
    rng = np.random.default_rng((seed, prompt_len))

    def sequence(prompt: int, decodes: int, arrives_at: int) -> ScriptedSequence:
        ids = rng.integers(0, vocab_size, prompt + decodes).tolist()
        return ScriptedSequence(token_ids=tuple(ids), prompt_len=prompt, arrives_at=arrives_at)

    return Script(
        sequences=(
            sequence(prompt_len, 4, 0),
            sequence(prompt_len + 3, 2, 1),
            sequence(1, 2, 2),
        ),
        max_num_batched_tokens=max(prompt_len, 2 * NUM_SEQUENCES),
    )


def play(engine: Engine, script: Script, run: Callable[[Batch], Result]) -> Played[Result]:
    """Leads an engine through a script; ``run`` carries a step out."""
    scheduler = Scheduler(engine)
    sequences = [
        Scheduled(list(each.token_ids[: each.prompt_len]), wants_all_logits=True)
        for each in script.sequences
    ]
    index_of = {id(sequence): index for index, sequence in enumerate(sequences)}
    batches: list[Batch] = []
    owners: list[tuple[int, ...]] = []
    results: list[Result] = []
    last_arrival = max(each.arrives_at for each in script.sequences)
    while scheduler.has_work or len(batches) <= last_arrival:
        for each, sequence in zip(script.sequences, sequences, strict=True):
            if each.arrives_at == len(batches):
                scheduler.add(sequence)
        step = scheduler.schedule()
        batches.append(step.batch)
        owners.append(tuple(index_of[id(share.sequence)] for share in step.shares))
        results.append(run(step.batch))
        scheduler.advance(step)
        for share in step.shares:
            if share.sequence.num_new_tokens == 0:
                _feed(scheduler, share.sequence, script.sequences[index_of[id(share.sequence)]])
    return Played(tuple(batches), tuple(owners), tuple(results))


def _feed(scheduler: Scheduler, sequence: Scheduled, scripted: ScriptedSequence) -> None:
    known = len(sequence.token_ids)
    if known == len(scripted.token_ids):
        scheduler.finish(sequence)
    else:
        sequence.token_ids.append(scripted.token_ids[known])


def greedy(engine: Engine, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """Returns the continuation of every prompt by argmax, all of them as one mixed batch."""
    scheduler = Scheduler(engine)
    sequences = [Scheduled(list(prompt)) for prompt in prompts]
    for sequence in sequences:
        scheduler.add(sequence)
    ends: Mapping[int, int] = {
        id(sequence): len(prompt) + count
        for sequence, prompt in zip(sequences, prompts, strict=True)
    }
    while scheduler.has_work:
        step = scheduler.schedule()
        logits = engine.forward(step.batch)
        scheduler.advance(step)
        for share in step.shares:
            if not share.is_complete:
                continue
            share.sequence.token_ids.append(int(logits[share.logit_rows.stop - 1].argmax()))
            if len(share.sequence.token_ids) == ends[id(share.sequence)]:
                scheduler.finish(share.sequence)
    return [
        sequence.token_ids[len(prompt) :]
        for sequence, prompt in zip(sequences, prompts, strict=True)
    ]
