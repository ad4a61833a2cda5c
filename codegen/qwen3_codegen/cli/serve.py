"""``qwen3-codegen serve``: a model behind OpenAI's HTTP API."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from pathlib import Path

from qwen3_codegen.byte_size import parse_bytes
from qwen3_codegen.cli.model_options import add_model_options, model_arguments
from qwen3_codegen.cli.options import refuse_unavailable
from qwen3_codegen.distribution import distribution_version
from qwen3_codegen.errors import CodegenError

_EXAMPLES = """\
examples:
  qwen3-codegen serve --model CHECKPOINT
  qwen3-codegen serve --model Qwen/Qwen3-1.7B --max-batch 8 --max-tokens 4096 --port 8080
  qwen3-codegen serve --model CHECKPOINT --host 0.0.0.0 --api-key-file keys.txt

The OpenAI clients use it with base_url="http://127.0.0.1:8000/v1". A chat page is at
http://127.0.0.1:8000/. Ctrl-C or SIGTERM lets running answers end; a second one does not wait.
"""
_MAX_NUM_SEQS = 16
_KEY_VARIABLE = "QWEN3_CODEGEN_API_KEY"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a model over HTTP, as OpenAI's API",
        description="Serves one model over HTTP. Requests are batched continuously.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model_options(parser)
    _add_server_options(parser)
    parser.set_defaults(run=run)


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    engine = parser.add_argument_group("batching")
    engine.add_argument(
        "--max-batch",
        dest="max_num_seqs",
        type=int,
        metavar="N",
        help="the same as --max-num-seqs: most answers in flight at once; default: 16",
    )
    engine.add_argument(
        "--max-tokens",
        dest="max_model_len",
        type=int,
        metavar="N",
        help="the same as --max-model-len",
    )
    engine.add_argument(
        "--max-queue", type=int, default=256, metavar="N", help="most that wait; default: 256"
    )
    engine.add_argument(
        "--enable-embeddings",
        nargs="?",
        const="last",
        choices=("last", "mean"),
        metavar="POOLING",
        help="serve /v1/embeddings with a second engine: the final hidden state of the last token "
        "(last), or the mean of all (mean); default: last",
    )
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; default: 127.0.0.1, this machine"
    )
    server.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes a free one")
    server.add_argument(
        "--served-model-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name requests may ask for; may be repeated",
    )
    server.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help=f"ask every client for this key; may be repeated. Others on this machine can see it "
        f"here: ${_KEY_VARIABLE} or --api-key-file keep it to yourself",
    )
    server.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="keys, one a line; # begins a comment"
    )
    server.add_argument(
        "--allowed-origin",
        action="append",
        default=[],
        metavar="URL",
        help="let pages of this origin call from a browser; * is any; may be repeated",
    )
    server.add_argument(
        "--max-body-size",
        default="8MiB",
        metavar="SIZE",
        help="8MiB, 20MB, or bytes; default: 8MiB",
    )
    server.add_argument(
        "--request-timeout", type=float, default=600.0, metavar="SECONDS", help="default: 600"
    )
    server.add_argument(
        "--drain-timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="longest wait for running answers once told to end; default: 30",
    )
    server.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="default: text"
    )
    server.add_argument(
        "--no-thinking",
        action="store_true",
        help="pass enable_thinking=false to the chat template unless a request says otherwise",
    )
    server.add_argument(
        "--chat-template-kwargs",
        metavar="JSON",
        help='what every chat template gets unless a request says otherwise: {"key": value}',
    )


def run(args: argparse.Namespace) -> int:
    """Serves until it is told to end."""
    refuse_unavailable(args)
    if not 0 <= args.port <= 65535:
        raise CodegenError("--port is out of range", got=args.port, expected="0 to 65535")
    api_keys = _api_keys(args)
    template_arguments = _template_arguments(args)
    from qwen3_codegen.serving import prepare_model
    from qwen3_runtime.server import ServerSettings, serve

    prepared = prepare_model(
        args.model,
        model_arguments(args, _MAX_NUM_SEQS),
        args.served_model_name,
        args.enable_embeddings,
    )
    settings = ServerSettings(
        model_names=prepared.names,
        api_keys=api_keys,
        allowed_origins=tuple(map(_origin, args.allowed_origin)),
        max_body_bytes=parse_bytes(args.max_body_size, "--max-body-size"),
        max_queue=_positive("--max-queue", args.max_queue),
        request_seconds=_positive("--request-timeout", args.request_timeout),
        drain_seconds=_positive("--drain-timeout", args.drain_timeout),
        template_arguments=template_arguments,
        log_format=args.log_format,
        version=distribution_version() or "unknown",
    )
    chat = prepared.spec.chat
    return serve(
        prepared.loader,
        settings,
        host=args.host,
        port=args.port,
        tokenizer=prepared.tokenizer,
        end_token_ids=prepared.end_token_ids,
        default_params=prepared.default_params,
        default_params_without_thinking=prepared.default_params_without_thinking,
        system_prompt=chat.system_prompt,
        tool_format=chat.tool_format,
        reasoning_format=chat.reasoning_format,
    )


def _api_keys(args: argparse.Namespace) -> frozenset[str]:
    if not all(key.strip() for key in args.api_key):
        raise CodegenError(  # an unset variable of a shell must not open the server to all
            "--api-key is empty", hint="without the option the server asks for no key"
        )
    keys = [*args.api_key, os.environ.get(_KEY_VARIABLE, "")]
    if args.api_key_file is not None:
        lines = _lines_of(args.api_key_file)
        found = [line.partition("#")[0].strip() for line in lines]
        if not any(found):
            raise CodegenError("there is no key in this file", where=args.api_key_file)
        keys += found
    return frozenset(key for key in keys if key)


def _lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CodegenError("--api-key-file cannot be read", where=path, got=reason) from None


def _origin(given: str) -> str:
    """Browsers send a scheme, a host and a port; anything else never matches."""
    if given != "*" and not re.fullmatch(r"https?://[^/\s]+", given):
        raise CodegenError(
            "--allowed-origin is no origin", got=given, expected="such as https://chat.example.org"
        )
    return given


def _template_arguments(args: argparse.Namespace) -> dict[str, object]:
    arguments: dict[str, object] = {}
    if args.chat_template_kwargs is not None:
        try:
            arguments = json.loads(args.chat_template_kwargs)
        except ValueError as error:
            raise CodegenError("--chat-template-kwargs is no JSON", got=error) from None
        if not isinstance(arguments, dict):
            raise CodegenError("--chat-template-kwargs is no JSON object", got=arguments)
    return {**({"enable_thinking": False} if args.no_thinking else {}), **arguments}


def _positive(option: str, value: float) -> int:
    if not 0 < value < math.inf:
        raise CodegenError(f"{option} is out of range", got=value, expected="above 0")
    return value  # type: ignore[return-value] # an int where the option is one
