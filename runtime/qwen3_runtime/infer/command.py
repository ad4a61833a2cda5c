"""``python -m qwen3_runtime.qwen3 DIR cpu``: what the old engine's scripts did when run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qwen3_runtime.errors import RuntimeFault
from qwen3_runtime.infer.compiler import compiler_module
from qwen3_runtime.infer.devices import DeviceType
from qwen3_runtime.infer.model import InferModel

__all__ = ["main"]

_QUESTION = "山东最高的山是？"
_MAX_STEPS = 500
_DEVICE_FLAGS = {f"--{device.device}" for device in DeviceType}


def main(model_class: type[InferModel], argv: Sequence[str] | None = None) -> int:
    """Opens a model, lets it answer the question the old scripts asked, and returns the exit code.

    Both orders are taken: ``DIR cpu 1`` of qwen3.py and ``--cpu DIR 1`` of jiuge.py.
    """
    args = _parser().parse_args(_in_order(sys.argv[1:] if argv is None else argv))
    try:
        model = model_class(args.model_dir_path, args.device, args.ndev)
        _, seconds = model.generate(_QUESTION, _MAX_STEPS)
        print(f"Time per step: {1000 * seconds:.3f} ms", file=sys.stderr)
        model.destroy_model_instance()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except RuntimeFault as error:
        return _refused(error)
    except compiler_module("errors").CodegenError as error:
        return _refused(error)
    return 0


def _refused(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"Lets a model answer {_QUESTION}",
        epilog="`qwen3-codegen chat --model DIR` asks what you like.",
        allow_abbrev=False,
    )
    parser.add_argument("model_dir_path", metavar="DIR", help="Hugging Face folder")
    parser.add_argument("device", nargs="?", default="cpu", help="such as cpu or nvidia")
    parser.add_argument("ndev", nargs="?", type=int, default=1, help="number of devices")
    return parser


def _in_order(words: Sequence[str]) -> list[str]:
    """Puts a device given as a flag after the folder."""
    flags = [word for word in words if word in _DEVICE_FLAGS]
    others = [word for word in words if word not in _DEVICE_FLAGS]
    return [*others[:1], *(flag.removeprefix("--") for flag in flags), *others[1:]]
