"""Runs command lines in forks of one process that has imported every command already.

Started as a program; a request is one line of JSON on descriptor argv[1], the answer to it the
command's exit code on a line on descriptor argv[2].
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys

from qwen3_codegen.cli.main import _COMMANDS, main

TIMEOUT = 300


def serve(requests: int, answers: int) -> int:
    """Answers requests until there are no more; in a fork, returns a command's exit code."""
    for name, _ in _COMMANDS.values():
        importlib.import_module(f"qwen3_codegen.cli.{name}")
    with os.fdopen(requests) as lines:
        for line in lines:
            child = os.fork()
            if child == 0:
                return run(**json.loads(line))
            _, status = os.waitpid(child, 0)
            os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return 0


def run(arguments: list[str], folder: str, environment: dict[str, str], streams: list[str]) -> int:
    """Does what a new process would do; the three standard streams are files."""
    signal.alarm(TIMEOUT)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR), descriptor)
    return main(arguments)


if __name__ == "__main__":
    sys.exit(serve(*map(int, sys.argv[1:])))
