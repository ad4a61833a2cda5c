"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.spec.device import parse_dtype
from qwen3_codegen.spec.functions import FunctionTable


def add_spec_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Adds what chooses and alters a model description."""
    parser.add_argument(
        "--spec",
        required=required,
        metavar="NAME|FILE",
        help="a shipped spec (see `qwen3-codegen specs`), a YAML file, or a checkpoint",
    )
    add_override_options(parser)


def add_override_options(parser: argparse.ArgumentParser) -> None:
    """Adds what alters a model description, wherever it comes from."""
    parser.add_argument(
        "--arch",
        metavar="NAME|FILE",
        help="architecture to use instead of the one the model names",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a config field; may be repeated",
    )
    parser.add_argument(
        "--ignore-config-key",
        action="append",
        default=[],
        metavar="KEY",
        dest="ignore_config_keys",
        help="accept a config field the architecture does not know; recorded in the manifest",
    )
    parser.add_argument(
        "--ops",
        action="append",
        default=[],
        metavar="DIR",
        help="folder with ops of your own, for statements to call; runs the Python in it and "
        "compiles the C++ in it, so name only what you trust; may be repeated",
    )


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Adds what chooses the device, the dtype and the InfiniCore."""
    parser.add_argument(
        "--dev", default="cpu", metavar="NAME|FILE", help="device, alias or device YAML (cpu)"
    )
    parser.add_argument(
        "--dtype", metavar="T", help="float32, bfloat16 or float16; default: the model's own"
    )
    parser.add_argument(
        "--activation-dtype",
        default="auto",
        metavar="T",
        help="what values between ops are kept in: auto (default: float32, in the portable "
        "lowering --dtype), float32, or the dtype of --dtype itself, which is less exact; with "
        "auto, products of dense bfloat16 models round their rows on processors that multiply "
        "bfloat16 (AVX512_BF16), with float32 they do not; native lowering only",
    )
    parser.add_argument(
        "--kv-cache-dtype",
        default="auto",
        metavar="T",
        help="what keys and values are kept in: auto (default: as --dtype, in mixtures of experts "
        "as --activation-dtype), float32, bfloat16 or float16; native lowering only",
    )
    parser.add_argument(
        "--infinicore",
        default="embedded",
        metavar="WHICH",
        help="embedded (default), 0.1.0 (see `qwen3-codegen infinicore install`), or INFINI_ROOT",
    )
    parser.add_argument(
        "--infinicore-api", metavar="RELEASE", help="release of InfiniCore's C API to write against"
    )
    parser.add_argument(
        "--isa",
        default="native",
        metavar="SET",
        help="native (default), portable, avx2, avx512 or avx512-bf16",
    )
    parser.add_argument(
        "--lowering",
        choices=("portable", "native"),
        help="portable calls InfiniCore's operators, native kernels of our own (cpu only); "
        "default: the device's",
    )
    parser.add_argument(
        "--ndev",
        type=int,
        default=1,
        metavar="N",
        help="number of devices (1); more are not available in this version",
    )
    parser.add_argument(
        "--quant", metavar="TYPE", help="weight quantisation; not available in this version"
    )


def refuse_unavailable(args: argparse.Namespace) -> None:
    """Raises CodegenError for choices that no lowering carries out yet."""
    if args.quant is not None:
        raise CodegenError(
            "quantised engines are not available in this version",
            got=f"--quant {args.quant}",
            hint="leave --quant out; GGUF files are dequantised while they load",
        )
    if args.ndev != 1:
        raise CodegenError(
            "engines over several devices are not available in this version",
            got=f"--ndev {args.ndev}",
            expected="--ndev 1",
        )


def activation_dtype(args: argparse.Namespace) -> DType | None:
    """Returns what values between ops are kept in, None for ``auto``."""
    return _dtype_or_auto(args.activation_dtype)


def kv_cache_dtype(args: argparse.Namespace) -> DType | None:
    """Returns what keys and values are kept in, None for ``auto``."""
    return _dtype_or_auto(args.kv_cache_dtype)


def _dtype_or_auto(name: str) -> DType | None:
    return None if name == "auto" else parse_dtype(name)


def parse_overrides(pairs: list[str]) -> dict[str, str]:
    """Returns ``--set`` pairs as a mapping.

    Raises:
        CodegenError: A pair has no ``=``, or a key is given twice.
    """
    overrides: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise CodegenError("--set takes KEY=VALUE", got=pair)
        if key in overrides:
            raise CodegenError("a config field is set twice", got=f"--set {pair}")
        overrides[key] = value
    return overrides


def own_functions(args: argparse.Namespace) -> FunctionTable:
    """Returns the ops in the folders of ``--ops``, for the loaders of models.

    Raises:
        OpError: One of them is wrong.
    """
    if not args.ops:
        return {}  # without NumPy, which the ops need
    from qwen3_codegen.own_ops import load_ops

    return load_ops(args.ops)


def existing_path(text: str) -> Path:
    """Returns a path that must exist, as an argparse type."""
    path = Path(text)
    if not os.path.exists(path):
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return path
