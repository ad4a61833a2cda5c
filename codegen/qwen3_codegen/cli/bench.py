"""``qwen3-codegen bench serve``: how fast a server answers, seen from its clients."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from qwen3_codegen.cli.options import existing_path
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.progress import say

if TYPE_CHECKING:
    from qwen3_codegen.bench import Address, Load, Report
    from qwen3_codegen.bench.requests import AnswerTimes, Prompt

_EXAMPLES = """\
examples:
  qwen3-codegen bench serve --url http://127.0.0.1:8000 --concurrency 8
  qwen3-codegen bench serve --model CHECKPOINT --num-prompts 64 --request-rate 2
  qwen3-codegen bench serve --model CHECKPOINT --output times.json -- --max-num-seqs 8

Prompts are random token ids unless --prompts names a file. What stands after -- goes to
`qwen3-codegen serve`, which --model starts and ends.
"""
_KEY_VARIABLE = "QWEN3_CODEGEN_API_KEY"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "bench",
        help="measure a server",
        description="Measures.",
        allow_abbrev=False,
    )
    what = parser.add_subparsers(title="what to measure", metavar="WHAT", required=True)
    serve = what.add_parser(
        "serve",
        help="a server of OpenAI's API: time to first token, between tokens, throughput",
        description="Sends requests to a server and prints time to first token (TTFT), time per "
        "output token (TPOT), inter-token latency (ITL), time to the end (E2E) and throughput.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_target(serve)
    _add_load(serve)
    serve.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON")
    serve.set_defaults(run=run)


def _add_target(parser: argparse.ArgumentParser) -> None:
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--url", help="a server that runs, with or without /v1")
    target.add_argument("--model", metavar="CHECKPOINT", help="start our own server for it")
    parser.add_argument(
        "--served-model-name", metavar="NAME", help="name to ask for; default: the server's first"
    )
    parser.add_argument(
        "--api-key", metavar="KEY", help=f"default: ${_KEY_VARIABLE}, which others cannot see"
    )
    parser.add_argument(
        "serve_options", nargs="*", metavar="OPTION", help="after --: options of serve"
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    load = parser.add_argument_group("load")
    for name, default, text in (
        ("--num-prompts", 32, "requests to send"),
        ("--concurrency", 8, "most requests in flight"),
        ("--prompt-len", 128, "tokens of a random prompt"),
        ("--answer-len", 64, "tokens of an answer; end tokens are ignored"),
        ("--shared-prefix-len", 0, "tokens with which all random prompts begin"),
        ("--vocab-size", 1000, "random prompts take token ids below it"),
        ("--warmup", 1, "requests sent before, which do not count"),
        ("--seed", 0, "of prompts and arrival times"),
    ):
        load.add_argument(name, type=int, default=default, metavar="N", help=f"{text}; {default}")
    load.add_argument(
        "--request-rate",
        type=float,
        default=math.inf,
        metavar="R",
        help="requests a second on average, at random times; default: as soon as there is room",
    )
    load.add_argument(
        "--prompts",
        type=existing_path,
        metavar="FILE",
        help='one a line: text, or {"prompt": text or token ids}',
    )


def run(args: argparse.Namespace) -> int:
    """Measures; 1 when a request failed."""
    _check(args)
    import uvloop

    from qwen3_codegen.bench import Address, Load, Wanted, launched_server, summarize
    from qwen3_codegen.bench.load import run_load, served_model

    key = args.api_key or os.environ.get(_KEY_VARIABLE)
    prompts = _prompts(args)
    wanted = [Wanted(prompt, args.answer_len) for prompt in prompts]
    load = Load(
        wanted=wanted[args.warmup :],
        concurrency=args.concurrency,
        request_rate=args.request_rate,
        seed=args.seed,
    )
    starting = launched_server(args.model, args.serve_options) if args.model else nullcontext()
    with starting as server:
        try:
            address = Address.parse(server.url if server else args.url, key)
        except ValueError as error:
            raise CodegenError(str(error), expected="http://HOST:PORT") from None
        name = args.served_model_name or uvloop.run(served_model(address))
        if args.warmup:
            before = Load(wanted=wanted[: args.warmup], concurrency=args.concurrency)
            uvloop.run(run_load(address, name, before))
        report = summarize(_with_bar(address, name, load))
    _print(report)
    for message in report.errors:
        say(f"failed: {message}")
    if args.output is not None:
        _write(args, name, report)
    return 1 if report.num_failed else 0


def _check(args: argparse.Namespace) -> None:
    least = {"shared_prefix_len": 0, "warmup": 0, "seed": 0}
    for name in ("num_prompts", "concurrency", "prompt_len", "answer_len", "vocab_size", *least):
        if getattr(args, name) < least.get(name, 1):
            option = f"--{name.replace('_', '-')}"
            raise CodegenError(
                f"{option} is out of range",
                got=getattr(args, name),
                expected=f"at least {least.get(name, 1)}",
            )
    if not args.request_rate > 0:
        raise CodegenError("--request-rate is out of range", got=args.request_rate)
    if args.serve_options and args.url:
        raise CodegenError("options of serve need --model", got=" ".join(args.serve_options))


def _prompts(args: argparse.Namespace) -> Sequence[Prompt]:
    from qwen3_codegen.bench import file_prompts, random_prompts

    count = args.num_prompts + args.warmup
    if args.prompts is not None:
        return file_prompts(args.prompts, count)
    return random_prompts(
        count,
        args.prompt_len,
        vocab_size=args.vocab_size,
        shared_prefix_len=args.shared_prefix_len,
        seed=args.seed,
    )


def _with_bar(address: Address, model: str, load: Load) -> list[AnswerTimes]:
    import uvloop

    from qwen3_codegen.bench.load import run_load
    from qwen3_codegen.progress import counted

    with counted("Requests", len(load.wanted)) as advance:
        return uvloop.run(run_load(address, model, load, lambda _: advance(1)))


def _print(report: Report) -> None:
    lines = [
        ("requests", f"{report.num_requests}, {report.num_failed} failed"),
        ("duration", f"{report.duration_s:.2f} s"),
        ("prompt tokens", f"{report.total_prompt_tokens}, {report.total_cached_tokens} cached"),
        ("output tokens", f"{report.total_output_tokens}"),
        ("requests/s", f"{report.request_throughput:.2f}"),
        ("output tokens/s", f"{report.output_throughput:.1f}"),
        ("all tokens/s", f"{report.total_token_throughput:.1f}"),
    ]
    for name, value in lines:
        print(f"{name:<18}{value}")
    print(f"\n{'milliseconds':<18}{'mean':>10}{'p50':>10}{'p95':>10}{'p99':>10}")
    for name in ("ttft", "tpot", "itl", "e2e"):
        times = getattr(report, f"{name}_ms")
        figures = (times.mean, times.p50, times.p95, times.p99)
        print(f"{name.upper():<18}" + "".join(f"{figure:10.2f}" for figure in figures))


def _write(args: argparse.Namespace, model: str, report: Report) -> None:
    settings = {
        name: getattr(args, name)
        for name in ("num_prompts", "concurrency", "answer_len", "warmup", "seed")
    }
    settings["request_rate"] = None if math.isinf(args.request_rate) else args.request_rate
    settings["prompts"] = (
        {name: getattr(args, name) for name in ("prompt_len", "shared_prefix_len", "vocab_size")}
        if args.prompts is None
        else str(args.prompts)
    )
    content = {"model": model, "load": settings, **report.to_json()}
    args.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
