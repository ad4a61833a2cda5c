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
from pathlib import Path

from qwen3_codegen import serving
from qwen3_codegen.cli.main import main as command_line
from qwen3_runtime.engine.core import EngineCore, EngineRequest, TokenOutput
from qwen3_runtime.serving import EngineLoader, LoadedEngine, worker

STRETCH = 16
"""Steps of a stretch."""
UNSETTLED = 4
"""The first ones of a stretch, which are not counted: the server still works on the one before."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps that followed each other."""

    is_served: bool
    num_answers: int
    """Least of a step."""
    seconds_per_step: float


@dataclass(frozen=True, slots=True)
class Run:
    """What the engine did from one idle moment to the next."""

    seconds: float
    num_steps: int
    """Of those that gave tokens."""
    stretches: list[Stretch]

    @property
    def num_answers(self) -> int:
        """Most at once."""
        return max(stretch.num_answers for stretch in self.stretches)

    def pairs(self) -> Iterator[tuple[Stretch, Stretch]]:
        """Neighbours with all answers on their way: one that was served, one that was not."""
        for served, alone in zip(self.stretches[::2], self.stretches[1::2], strict=False):
            if alone.num_answers == served.num_answers == self.num_answers:
                yield served, alone


@dataclass(slots=True)
class CoreInTurns(EngineCore):
    """Notes when each step was over, and whether the server had told of the one before."""

    log: Path = field(kw_only=True)
    _begun: float = field(init=False, default=0.0)
    _steps: list[tuple[int, float]] = field(init=False, default_factory=list)
    """How many answers each went on with, and when it was over."""

    def add(self, request: EngineRequest) -> None:
        if not self.has_work:
            self._steps.clear()  # of answers whose clients left
        super(CoreInTurns, self).add(request)

    def step(self) -> list[TokenOutput]:
        # The first stretch is served: requests that come one after another are to be let in.
        is_silent = len(self._steps) // STRETCH % 2 == 1
        outputs = self._noted_step()
        while is_silent and self.has_work and len(self._steps) % STRETCH:
            outputs += self._noted_step()
        if not self.has_work and self._steps:
            with self.log.open("a", encoding="ascii") as log:
                log.write(json.dumps({"begun": self._begun, "steps": self._steps}) + "\n")
            self._steps.clear()
        return outputs

    def _noted_step(self) -> list[TokenOutput]:
        if not self._steps:
            self._begun = time.perf_counter()
        outputs = super(CoreInTurns, self).step()
        if outputs:
            self._steps.append((len(outputs), time.perf_counter()))
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
    runs = []
    for line in log.read_text(encoding="ascii").splitlines():
        noted = json.loads(line)
        steps: list[tuple[int, float]] = noted["steps"]
        starts = range(0, len(steps) - STRETCH + 1, STRETCH)
        stretches = [
            _stretch(index % 2 == 0, steps[start : start + STRETCH])
            for index, start in enumerate(starts)
        ]
        runs.append(Run(steps[-1][1] - noted["begun"], len(steps), stretches))
    return runs


def _stretch(is_served: bool, steps: list[tuple[int, float]]) -> Stretch:
    settled = steps[UNSETTLED - 1 :]
    seconds = (settled[-1][1] - settled[0][1]) / (len(settled) - 1)
    return Stretch(is_served, min(count for count, _ in steps), seconds)


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
