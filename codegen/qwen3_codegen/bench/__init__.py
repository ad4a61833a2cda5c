"""Measures servers that speak OpenAI's API, our own and others, from the client's side."""

from qwen3_codegen.bench.launch import LaunchedServer, launched_server
from qwen3_codegen.bench.load import Load, run_load
from qwen3_codegen.bench.report import Report, summarize
from qwen3_codegen.bench.requests import AnswerTimes, Wanted, file_prompts, random_prompts
from qwen3_codegen.bench.stream import Address, StreamError

__all__ = [
    "Address",
    "AnswerTimes",
    "LaunchedServer",
    "Load",
    "Report",
    "StreamError",
    "Wanted",
    "file_prompts",
    "launched_server",
    "random_prompts",
    "run_load",
    "summarize",
]
