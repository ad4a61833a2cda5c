"""A server whose engine works in turns with and without it, for measuring what serving costs.

    python -m tests.serving.stretches LOG serve --model CHECKPOINT ...

Two programs measured one after another differ by more than serving costs: where their memory lies,
and what else the machine does in those seconds, is worth 10 %. So both sides are stretches of the
same answers here, a fraction of a second apart. In one stretch the engine's process tells every
token as it comes; in the next it steps without a word, and tells all of it at the end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qwen3_codegen import serving
from qwen3_codegen.cli.main import main as command_line
from qwen3_runtime.engine.core import EngineCore, EngineRequest, TokenOutput
from qwen3_runtime.serving import EngineLoader, LoadedEngine, worker

STRETCH = 16
"""Steps of a stretch."""
UNSETTLED = 4
"""The first ones of a stretch, which are not counted: the server still works on the one before."""


class Step(NamedTuple):
    """One that gave tokens."""

    is_silent: bool
    num_answers: int
    ended: float


@dataclass(frozen=True, slots=True)
class Run:
    """What the engine did from one idle moment to the next."""

    begun: float
    steps: list[Step]

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return self.steps[-1].ended - self.begun

    @property
    def num_answers(self) -> int:
        """Most at once."""
        return max(step.num_answers for step in self.steps)

    @property
    def full_seconds(self) -> list[float]:
        """Seconds of each step that goes on with all answers, and with nothing else: the one that
        gives the last of them its first token reads that one's prompt."""
        return [
            step.ended - before.ended
            for before, step in pairwise(self.steps)
            if before.num_answers == step.num_answers == self.num_answers
        ]

    def comparisons(self) -> Iterator[Comparison]:
        """All of full steps; what the cache holds grows, so a silence is compared with both of its
        neighbours."""
        for start in range(STRETCH, len(self.steps) - 2 * STRETCH + 1):
            before, silent, after = (
                self.steps[begin : begin + STRETCH]
                for begin in (start - STRETCH, start, start + STRETCH)
            )
            kinds = [{step.is_silent for step in stretch} for stretch in (before, silent, after)]
            counts = {step.num_answers for step in (*before, *silent, *after)}
            if kinds == [{False}, {True}, {False}] and counts == {self.num_answers}:
                served = [_settled_seconds(stretch) for stretch in (before, after)]
                yield Comparison(float(np.mean(served)), _settled_seconds(silent))


class Comparison(NamedTuple):
    """Seconds of as many settled steps, told of as they were over, and kept to the end."""

    served: float
    silent: float


def _settled_seconds(stretch: list[Step]) -> float:
    return stretch[-1].ended - stretch[UNSETTLED - 1].ended


@dataclass(slots=True)
class CoreInTurns(EngineCore):
    """Notes when each step was over, and whether it is told of at once."""

    log: Path = field(kw_only=True)
    _begun: float = field(init=False, default=0.0)
    _steps: list[Step] = field(init=False, default_factory=list)

    def add(self, request: EngineRequest) -> None:
        if not self.has_work:
            self._steps.clear()  # of answers whose clients left
        super(CoreInTurns, self).add(request)

    def step(self) -> list[TokenOutput]:
        is_silent = self._is_settled
        outputs = self._noted_step(is_silent)
        for _ in range(STRETCH - 1 if is_silent else 0):
            outputs += self._noted_step(is_silent)
        if not self.has_work and self._steps:
            with self.log.open("a", encoding="ascii") as log:
                log.write(json.dumps([self._begun, self._steps]) + "\n")
            self._steps.clear()
        return outputs

    @property
    def _is_settled(self) -> bool:
        """Whether a stretch was served and no answer came or went: one that waits to be let in
        would otherwise wait for the end of a silence."""
        last = self._steps[-STRETCH:]
        return len(last) == STRETCH and {step[:2] for step in last} == {(False, last[0][1])}

    def _noted_step(self, is_silent: bool) -> list[TokenOutput]:
        if not self._steps:
            self._begun = time.perf_counter()
        outputs = super(CoreInTurns, self).step()
        if outputs:
            self._steps.append(Step(is_silent, len(outputs), time.perf_counter()))
        return outputs


@dataclass(frozen=True, slots=True)
class _Loader:
    """Loads an engine, and has it stepped in turns from then on."""

    load: EngineLoader
    log: Path

    def __call__(self, notify: Callable[[str], None]) -> LoadedEngine:
        worker.EngineCore = partial(CoreInTurns, log=self.log)
        return self.load(notify)


def read_runs(log: Path) -> list[Run]:
    """Returns what an engine has done so far."""
    noted = [json.loads(line) for line in log.read_text(encoding="ascii").splitlines()]
    return [Run(begun, [Step(*step) for step in steps]) for begun, steps in noted]


def main(log: Path, arguments: list[str]) -> int:
    """Serves as ``qwen3-codegen`` does, but in turns."""
    prepare = serving.prepare_model

    def prepare_model(*args, **options) -> serving.PreparedModel:
        prepared = prepare(*args, **options)
        return replace(prepared, loader=_Loader(prepared.loader, log))

    serving.prepare_model = prepare_model
    return command_line(arguments)


if __name__ == "__main__":
    # The engine's process must find its loader under the name that modules have.
    from tests.serving import stretches

    sys.exit(stretches.main(Path(sys.argv[1]), sys.argv[2:]))
