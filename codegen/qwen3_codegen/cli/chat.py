"""``qwen3-codegen chat``: a conversation in the terminal."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from qwen3_codegen.cli.model_options import (
    add_model_options,
    add_sampling_options,
    given_sampling,
    open_model,
    require,
    require_tokenizer,
)
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.progress import say
from qwen3_runtime.errors import RequestError

if TYPE_CHECKING:
    from qwen3_codegen.llm import LLM
    from qwen3_runtime.sampling import SamplingParams

_EXAMPLES = """\
examples:
  qwen3-codegen chat --model CHECKPOINT
  qwen3-codegen chat --model CHECKPOINT --message "What is the capital of France?"
  qwen3-codegen chat --model CHECKPOINT --system "Answer in Chinese." --no-thinking

In a conversation, an empty line or Ctrl-D ends it and Ctrl-C stops an answer.
"""
_WITHOUT_TEMPLATE = "`qwen3-codegen generate` continues plain text, or token ids: --token-ids 1,2,3"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "chat",
        help="talk to a model in the terminal",
        description="Talks to a model through its own chat template.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model_options(parser)
    parser.add_argument("--message", metavar="TEXT", help="ask this one thing and end")
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument(
        "--no-thinking", action="store_true", help="pass enable_thinking=False to the template"
    )
    add_sampling_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Asks once, or until the user ends the conversation."""
    sampling = given_sampling(args)
    require_tokenizer(args.model, _WITHOUT_TEMPLATE, chat=True)
    with open_model(args, max_num_seqs=1) as llm:
        require(
            llm.tokenizer is not None and llm.tokenizer.chat_template is not None,
            "this checkpoint has no chat template",
            _WITHOUT_TEMPLATE,
        )
        params = replace(llm.default_sampling_params, **sampling)
        system = args.system or llm.spec.chat.system_prompt
        messages = [{"role": "system", "content": system}] if system else []
        thinking = not args.no_thinking
        if args.message is not None:
            _answer(llm, messages, args.message, params, thinking)
            return 0
        return _converse(llm, messages, params, thinking)


def _converse(
    llm: LLM, messages: list[dict[str, str]], params: SamplingParams, thinking: bool
) -> int:
    if sys.stdin.isatty():
        say("an empty line or Ctrl-D ends the conversation, Ctrl-C stops an answer")
    while True:
        try:
            print("> ", end="", file=sys.stderr, flush=True)
            text = input()
        except EOFError:
            print(file=sys.stderr)
            return 0
        except UnicodeDecodeError as error:
            raise CodegenError(
                "the message is not UTF-8 text", where="standard input", got=error
            ) from None
        if not text.strip():
            return 0
        try:
            _answer(llm, messages, text, params, thinking)
        except KeyboardInterrupt:
            messages.pop()
            say("\nstopped")
        except RequestError as error:
            messages.pop()
            say(f"error: {error}")


def _answer(
    llm: LLM,
    messages: list[dict[str, str]],
    text: str,
    params: SamplingParams,
    thinking: bool,
) -> None:
    messages.append({"role": "user", "content": text})
    started = time.monotonic()
    output = llm.chat(messages, params, on_text=_write, enable_thinking=thinking)
    print()
    seconds = time.monotonic() - started
    say(
        f"[{output.num_prompt_tokens} prompt tokens, {len(output.token_ids)} new tokens, "
        f"{len(output.token_ids) / seconds:.1f} tokens/s with the prompt]"
    )
    messages.append({"role": "assistant", "content": output.text})


def _write(_index: int, text: str) -> None:
    print(text, end="", flush=True)
