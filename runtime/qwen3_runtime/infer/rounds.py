"""Rounds of sequences that keep their places in the cache from one round to the next.

The scheduler of the engine loop gives places out here, too: a sequence all of whose tokens are in
the cache stays where it is and takes no part in a step. A round appends tokens to some of them and
steps until each has the logits of its last one. A sequence whose place another one needs is taken
out; its tokens are kept, and computed again when it is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

import numpy as np

from qwen3_runtime.engine.batch import Engine, FloatRows
from qwen3_runtime.engine.scheduler import Scheduled, ScheduledStep, Scheduler, Sequence
from qwen3_runtime.errors import EngineError, RequestError
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.sampling.sampler import Draw, Sampler, sampler_for

__all__ = ["Rounds", "Turn"]

_Take = Callable[[Scheduled, FloatRows], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a round computes for one sequence."""

    sequence: Sequence
    position: int
    """Tokens of the sequence that stay; what it holds beyond them is forgotten."""
    token_ids: SequenceOf[int]
    """Tokens that follow them."""
    params: SamplingParams


@dataclass(slots=True)
class Rounds:
    """Sequences held in one engine, whose cache nobody else may use; calls wait for each other.

    Args:
        engine: A loaded engine.
    """

    engine: Engine
    _scheduler: Scheduler = field(init=False)
    _sampler: Sampler = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._scheduler = Scheduler(self.engine)
        self._sampler = sampler_for(self.engine)

    def hold(self) -> Sequence:
        """Returns a new, empty sequence; it takes its place when it is first used."""
        return Sequence([])

    def drop(self, sequence: Sequence) -> None:
        """Gives a sequence's place back."""
        with self._lock:
            self._scheduler.finish(sequence)

    def infer(self, turns: SequenceOf[Turn]) -> list[int]:
        """Computes the tokens of some sequences as one mixed batch, and samples one more each.

        Prompts beyond ``max_num_batched_tokens`` take several steps.

        Returns:
            The sampled tokens, one per turn, in order; they are not part of the sequences yet.

        Raises:
            RequestError: A sequence does not hold what it should, or becomes too long.
            EngineError: A step failed; another try starts from the same positions.
        """
        rows: dict[Sequence, FloatRows] = {}

        def take(share: Scheduled, logits: FloatRows) -> None:
            if share.is_complete:
                rows[share.sequence] = logits[-1]

        with self._lock:
            for turn in turns:
                self._check(turn)
            for turn in turns:
                self._append(turn)
            self._run([turn.sequence for turn in turns], take)
            return self._sampler.sample(
                np.stack([rows[turn.sequence] for turn in turns]), [_draw(turn) for turn in turns]
            )

    def log_likelihood(self, prompts: SequenceOf[SequenceOf[int]]) -> float:
        """Returns the sum of log p(token | those before it) over all tokens but the first ones.

        Args:
            prompts: Token ids, at least two each; they are computed together. None starts before
                there is room for all of it, so none is computed twice.
        """
        targets = {Sequence(list(ids[:-1]), wants_all_logits=True): ids[1:] for ids in prompts}
        total = 0.0

        def take(share: Scheduled, logits: FloatRows) -> None:
            nonlocal total
            end = share.sequence.num_cached_tokens
            tokens = targets[share.sequence][end - share.num_tokens : end]
            scored = self._sampler.logprobs(logits, tokens, [0] * len(tokens))
            total += sum(each.logprob for each in scored)
            if share.is_complete:
                self._scheduler.finish(share.sequence)

        with self._lock:
            self._run(list(targets), take)
        return total

    def check_integrity(self) -> None:
        """Raises AssertionError when a slot or a block is lost."""
        self._scheduler.check_integrity()

    def _check(self, turn: Turn) -> None:
        held, total = len(turn.sequence.token_ids), turn.position + len(turn.token_ids)
        if not 0 <= turn.position <= held:
            raise RequestError(
                "a KV cache does not hold the tokens before the task's position",
                got=f"position {turn.position}, {held} tokens in the cache",
            )
        if total > self.engine.max_model_len:
            raise RequestError(
                f"maximum context length is {self.engine.max_model_len} tokens",
                got=f"{total} tokens",
                hint="max_tokens= of the model raises it, as far as memory reaches",
            )

    def _append(self, turn: Turn) -> None:
        sequence = turn.sequence
        if turn.position < len(sequence.token_ids):
            # Blocks that others share, and states of recurrent layers, cannot be cut in place.
            self._scheduler.finish(sequence)
            del sequence.token_ids[turn.position :]
            sequence.block_keys.clear()
        sequence.token_ids += turn.token_ids

    def _run(self, sequences: SequenceOf[Sequence], take: _Take) -> None:
        """Steps until ``take`` was given the last row of every sequence."""
        pending = set(sequences)
        try:
            for sequence in sequences:
                if not self._has_place(sequence):
                    self._scheduler.add(sequence)
            while pending:
                step = self._next_step(pending)
                logits = self._forward(step)
                for share in step.shares:
                    take(share, logits[share.logit_rows.start : share.logit_rows.stop])
                    if share.is_complete:
                        pending.discard(share.sequence)
            self._put_first(set(sequences))
        except BaseException:
            for sequence in pending:
                self._scheduler.finish(sequence)
            raise

    def _next_step(self, pending: set[Sequence]) -> ScheduledStep:
        """Returns a step that brings some of them on; the others make room where there is none."""
        scheduler = self._scheduler
        while True:
            self._put_first(pending)
            step = scheduler.schedule()
            for sequence in [each for each in scheduler.waiting if each not in pending]:
                scheduler.finish(sequence)  # it gave way, and is computed again when it is used
            if step.shares:
                return step
            idle = [each for each in scheduler.running if each not in pending]
            if not idle:
                raise EngineError("the cache has no room for a single sequence")
            scheduler.finish(idle[-1])  # the one unused the longest

    def _put_first(self, sequences: set[Sequence]) -> None:
        """Lets others give way before them, later and in following rounds."""
        self._scheduler.running.sort(key=lambda sequence: sequence not in sequences)

    def _forward(self, step: ScheduledStep) -> FloatRows:
        try:
            for copy in step.copies:
                self.engine.copy_blocks(copy.group, [copy.source], [copy.destination])
            logits = self.engine.forward(step.batch)
            self._scheduler.advance(step)
        finally:
            self._scheduler.drop_copies()
        return logits

    def _has_place(self, sequence: Sequence) -> bool:
        return sequence in self._scheduler.running or sequence in self._scheduler.waiting


def _draw(turn: Turn) -> Draw:
    tokens = turn.sequence.token_ids
    return Draw(turn.params, turn.params.seed_or_new(), tokens, len(tokens))
