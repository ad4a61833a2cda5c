"""One process that gives a reader one input after the other; `python -m tests.fuzz` starts it.

It writes one JSON object a line to standard output: how far it is, each new kind of failure, and
at the end a summary. The input in hand lies in a mapped file, for a death that Python cannot catch.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.guard import Failure, Guard, bound_memory, peak_bytes

MAX_INPUT = 1 << 20
_SECONDS = 5.0
"""Of processor time for one input. The slowest legitimate one takes a tenth of a second."""
_MEMORY = 512 << 20
_REPORT_SECONDS = 1.0
_reports = sys.stdout


class InHand:
    """The input a worker is at, in a file that outlives it: length, then bytes."""

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as stream:
            stream.truncate(8 + MAX_INPUT)
            self._map = mmap.mmap(stream.fileno(), 8 + MAX_INPUT)

    def hold(self, data: bytes) -> None:
        self._map[:8] = len(data).to_bytes(8, "little")
        self._map[8 : 8 + len(data)] = data

    @staticmethod
    def left_in(path: Path) -> bytes:
        raw = path.read_bytes()
        return raw[8 : 8 + int.from_bytes(raw[:8], "little")]


class Campaign:
    """Counts, times and sorts what comes of inputs."""

    def __init__(self, read: Callable[[bytes], None], in_hand: InHand, num_inputs: int) -> None:
        self._read = read
        self._in_hand = in_hand
        self._num_inputs = num_inputs
        self._guard = Guard(_SECONDS)
        self._started = self._reported = time.monotonic()
        self._base = peak_bytes()
        self._slowest = 0.0
        self._failures: set[str] = set()
        self.outcomes: dict[str, int] = {}
        self.count = 0

    def run(self, data: bytes) -> bool:
        """Reads one input; returns whether nothing so far came out like it."""
        self._in_hand.hold(data)
        start = time.process_time()
        outcome = self._guard.outcome(self._read, data)
        self._slowest = max(self._slowest, time.process_time() - start)
        self.count += 1
        if isinstance(outcome, Failure):
            if outcome.kind not in self._failures:
                self._failures.add(outcome.kind)
                say(failure=outcome.kind, trace=outcome.trace, input=data.hex())
            outcome = outcome.kind
        is_new = outcome not in self.outcomes
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if time.monotonic() - self._reported > _REPORT_SECONDS:
            self._reported = time.monotonic()
            say(inputs=self.count, failures=len(self._failures))
        return is_new

    @property
    def is_over(self) -> bool:
        return self.count >= self._num_inputs

    def summary(self, **facts: object) -> None:
        say(
            summary={
                "inputs": self.count,
                "seconds": round(time.monotonic() - self._started, 1),
                "answers": self.outcomes.get("answer", 0),
                "outcomes": len(self.outcomes),
                "failures": len(self._failures),
                "slowest_ms": round(self._slowest * 1e3, 1),
                "memory_mib": (peak_bytes() - self._base) >> 20,
                **facts,
            }
        )


def take_standard_output() -> None:
    """Keeps standard output for reports: libraries print there too, from C++ even."""
    global _reports
    _reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)


def say(**facts: object) -> None:
    print(json.dumps(facts), file=_reports, flush=True)


def mutate_and_run(campaign: Campaign, seeds: list[bytes], mutate, rng, max_bytes: int) -> None:
    """Without coverage, an input whose outcome is new takes part from then on."""
    pool = list(seeds)
    while not campaign.is_over:
        data = mutate(rng.choice(pool), rng)[:max_bytes]
        if campaign.run(data) and len(pool) < 2000:
            pool.append(data)


def run_under_coverage(
    campaign: Campaign, seeds: list[bytes], mutate, seed: int, max_bytes: int, folder: Path
) -> None:
    """libFuzzer keeps what reaches new branches and picks what to mutate; never returns."""
    import atheris

    corpus = folder / "seeds"
    corpus.mkdir()
    for index, data in enumerate(seeds):
        (corpus / str(index)).write_bytes(data)

    def custom_mutator(data: bytes, max_size: int, mutation_seed: int) -> bytes:
        rng = random.Random(mutation_seed)
        if rng.random() < 0.2:
            return bytes(atheris.Mutate(data, max_size))
        return mutate(bytes(data), rng)[:max_size]

    def test_one_input(data: bytes) -> None:
        campaign.run(data)
        if campaign.is_over:
            campaign.summary()
            os._exit(0)

    # Its own limits would end the process; the guard's and the parent's are enough.
    options = [f"-seed={seed or 1}", f"-max_len={max_bytes}", "-rss_limit_mb=0", "-timeout=600"]
    options.append(f"-artifact_prefix={folder}/")
    atheris.Setup(
        [sys.argv[0], *options, str(corpus)], test_one_input, custom_mutator=custom_mutator
    )
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("reader")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--inputs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--files", type=Path, nargs="*")
    arguments = parser.parse_args()
    take_standard_output()
    if arguments.coverage:
        import atheris

        with atheris.instrument_imports(include=["qwen3_codegen", "qwen3_runtime"]):
            from tests.fuzz.readers import READERS
    else:
        from tests.fuzz.readers import READERS

    from tests.fuzz.mutation import Mutator

    reader = READERS[arguments.reader]
    folder = arguments.folder / "input"
    folder.mkdir()
    read = reader.reading(folder)
    seeds = reader.seeds()
    for data in seeds:  # imports what is imported late and fills caches
        warm(read, data)
    in_hand = InHand(arguments.folder / "in_hand")
    bound_memory(_MEMORY)
    campaign = Campaign(read, in_hand, arguments.inputs)
    if arguments.files:
        for file in arguments.files:
            campaign.run(read_input(file))
        campaign.summary()
        return
    mutate = reader.mutate(Mutator(seeds))
    if arguments.coverage:
        run_under_coverage(
            campaign, seeds, mutate, arguments.seed, reader.max_bytes, arguments.folder
        )
    mutate_and_run(campaign, seeds, mutate, random.Random(arguments.seed), reader.max_bytes)
    campaign.summary()


def warm(read: Callable[[bytes], None], data: bytes) -> None:
    try:
        read(data)
    except Exception:
        return


def read_input(file: Path) -> bytes:
    """Returns an input; one that is no text is kept as hexadecimal digits."""
    return bytes.fromhex(file.read_text()) if file.suffix == ".hex" else file.read_bytes()


if __name__ == "__main__":
    main()
