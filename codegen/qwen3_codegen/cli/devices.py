"""``qwen3-codegen devices``: op by op, what carries it out on which device, or why nothing does."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from qwen3_codegen.cli.options import add_spec_options, own_functions, parse_overrides
from qwen3_codegen.compile import make_graph
from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.ir.ops.own import own_definitions
from qwen3_codegen.progress import say
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import DeviceSpec, device_names, load_device
from qwen3_codegen.spec.functions import FunctionTable
from qwen3_codegen.spec.model import ModelSpec
from qwen3_codegen.spec.resolve import with_dtype
from qwen3_codegen.support import Answer, DeviceAnswers, ask_device, ask_model, sample_uses

_EXIT_REFUSED = 1
_Row = tuple[str, ...]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "devices",
        help="what carries each op out on each device, or why nothing does",
        description="Lists the devices, then op by op which operators of InfiniCore (or kernels of "
        "our own) carry it out there. With --spec: only that model's ops, and for which devices "
        "its engine can be built.",
        allow_abbrev=False,
    )
    add_spec_options(parser, required=False)
    parser.add_argument(
        "--dev",
        metavar="NAME|FILE",
        help="this device only; with --spec, exit code 1 when no engine can be built for it",
    )
    parser.add_argument(
        "--infinicore-api",
        metavar="RELEASE",
        help="release of InfiniCore's C API to ask about; default: each device's own",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the devices and the ops as two tables."""
    names = [args.dev] if args.dev else device_names()
    devices = [device for name in names for device in _lowerings_of(load_device(name))]
    functions = own_functions(args)
    own_ops = own_definitions(functions)
    if args.spec is None:
        asked = [
            ask_device(device, sample_uses(device.dtypes[0]), args.infinicore_api, own_ops)
            for device in devices
        ]
        _print_table(("device", "aliases", "API", "dtypes", "what"), map(_device_row, asked))
    else:
        asked = _ask_about_model(_model(args, functions), devices, args.infinicore_api)
        _print_table(("device", "dtype", "API", "engine"), map(_engine_row, asked))
    print()
    _print_table(("op", "devices", "carried out by"), _op_rows(asked, [*OPS, *own_ops]))
    is_refused = args.spec is not None and args.dev is not None and asked[0].refusal is not None
    return _EXIT_REFUSED if is_refused else 0


def _lowerings_of(device: DeviceSpec) -> list[DeviceSpec]:
    """The device, and for the CPU its other lowering, too."""
    if not device.is_host:
        return [device]
    other = "native" if device.lowering == "portable" else "portable"
    return [device, replace(device, name=f"{device.name} ({other})", lowering=other)]


def _model(args: argparse.Namespace, functions: FunctionTable) -> ModelSpec:
    spec = load_model(
        args.spec,
        overrides=parse_overrides(args.overrides),
        ignore_config_keys=tuple(args.ignore_config_keys),
        architecture=args.arch,
        own_functions=functions,
    )
    for note in spec.notes:
        say(f"note: {note}")
    return spec


def _ask_about_model(
    spec: ModelSpec, devices: Iterable[DeviceSpec], release: str | None
) -> list[DeviceAnswers]:
    @lru_cache
    def graph(dtype: DType, lowering: str) -> Graph:
        return make_graph(with_dtype(spec, dtype), lowering=lowering)

    asked = []
    for device in devices:
        dtype = spec.dtype if spec.dtype in device.dtypes else device.dtypes[0]
        asked.append(ask_model(device, graph(dtype, device.lowering), release))
    return asked


def _device_row(asked: DeviceAnswers) -> _Row:
    device = asked.device
    dtypes = ", ".join(dtype.value for dtype in device.dtypes)
    described = [text for text in (device.description, f"{device.lowering} lowering") if text]
    what = asked.refusal or "; ".join(described)
    return (device.name, ", ".join(device.aliases), asked.release, dtypes, what)


def _engine_row(asked: DeviceAnswers) -> _Row:
    verdict = "yes" if asked.refusal is None else f"no: {asked.refusal}"
    return (asked.device.name, asked.dtype.value, asked.release, verdict)


def _op_rows(asked: Sequence[DeviceAnswers], order: Sequence[str]) -> Iterable[_Row]:
    """Yields a row per op and distinct answer, with the devices that give it."""
    everyone = [one.device.name for one in asked if one.answers]
    labels = dict.fromkeys(label for one in asked for label in one.answers)
    for label in sorted(labels, key=lambda label: order.index(label.partition(",")[0])):
        by_answer: dict[str, list[str]] = {}
        for one in asked:
            if label in one.answers:
                text = _as_text(one.answers[label])
                by_answer.setdefault(text, []).append(one.device.name)
        for number, (text, names) in enumerate(by_answer.items()):
            yield (label if number == 0 else "", _as_names(names, everyone), text)


def _as_text(answer: Answer) -> str:
    if answer.refusal is not None:
        return f"unsupported: {answer.refusal}"
    if not answer.operators:
        return answer.reason
    return f"{', '.join(answer.operators)} ({answer.reason})"


def _as_names(names: Sequence[str], everyone: Sequence[str]) -> str:
    others = [name for name in everyone if name not in names]
    if not others:
        return "all" if len(everyone) > 1 else everyone[0]
    if len(others) < len(names):
        return f"all but {', '.join(others)}"
    return ", ".join(names)


def _print_table(head: _Row, rows: Iterable[_Row]) -> None:
    table = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
