"""``qwen3-codegen build``: an engine's folder from a spec and a device."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

from qwen3_codegen.build.toolchain import instruction_set
from qwen3_codegen.cli.options import (
    add_spec_options,
    add_target_options,
    parse_overrides,
    refuse_unavailable,
)
from qwen3_codegen.compile import (
    CompiledPlan,
    CompileOptions,
    Spelling,
    build_model,
    emit_model,
    plan_model,
)
from qwen3_codegen.progress import format_bytes, say, status
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import DeviceSpec, load_device, parse_dtype
from qwen3_runtime.engine.manifest import MANIFEST_FILE, TRACED_KEY

_CONFIGURATION = ("architecture", "device", "infinicore", "dtype", "rope", "overrides", TRACED_KEY)
"""Entries of a manifest, beside the config, that make an engine another one."""

_EXAMPLES = """\
examples:
  qwen3-codegen build --spec qwen3-1.7b --dev cpu
  qwen3-codegen build --spec qwen3-1.7b --dev mlu --emit-only
  qwen3-codegen build --spec my-model.yaml --set num_hidden_layers=2 --dump-ir ir/

then:
  >>> import sys; sys.path.insert(0, "generated")
  >>> from qwen3_1_7b_cpu import Engine
  >>> Engine.from_checkpoint(DIR).forward([[1, 2, 3]])
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "build",
        help="compile the engine of a model spec for a device",
        description="Writes a readable C++ engine for exactly one model on one device and "
        "compiles it into a Python module.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_spec_options(parser)
    add_target_options(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("generated"), help="parent folder (./generated)"
    )
    parser.add_argument("--emit-only", action="store_true", help="write sources, compile nothing")
    parser.add_argument(
        "--force", action="store_true", help="compile the engine even if nothing changed"
    )
    parser.add_argument("--dump-ir", type=Path, metavar="DIR", help="write the graph of each pass")
    parser.add_argument(
        "--trace",
        action="store_true",
        help="let every value of a step be looked at: Engine.trace(batch)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Builds; prints the folder on standard output."""
    refuse_unavailable(args)
    instruction_set(args.isa)
    started = time.monotonic()
    spec = load_model(
        args.spec,
        overrides=parse_overrides(args.overrides),
        ignore_config_keys=tuple(args.ignore_config_keys),
        architecture=args.arch,
    )
    for note in spec.notes:
        say(f"note: {note}")
    options = CompileOptions(
        dtype=parse_dtype(args.dtype) if args.dtype else None,
        infinicore=args.infinicore,
        release=args.infinicore_api,
        isa=args.isa,
        lowering=args.lowering,
        dump_ir=args.dump_ir,
        trace=args.trace,
        spelling=Spelling(spec=args.spec, dev=args.dev, arch=args.arch),
    )
    device = load_device(args.dev)
    compiled = plan_model(spec, device, options)
    if options.dtype is None and compiled.plan.dtype is not spec.dtype:
        say(
            f"note: {args.dev} does not compute in {spec.dtype.value}, the model's dtype; "
            f"{compiled.plan.dtype.value} is used"
        )
    say(summary(compiled, device))
    _announce_replacement(args.out / compiled.plan.module_name, compiled)
    if args.emit_only:
        directory, what = emit_model(compiled, args.out), "emitted"
    else:
        with status() as notify:
            result = build_model(compiled, args.out, options, notify, force=args.force)
        directory, what = result.directory, "built" if result.was_built else "up to date"
    say(f"{what} in {time.monotonic() - started:.1f} s")
    print(directory)
    return 0


def _announce_replacement(directory: Path, compiled: CompiledPlan) -> None:
    """Says when an engine of another configuration lies where this one goes.

    An engine's folder is named after model and device alone.
    """
    try:
        old = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    new = json.loads(compiled.files[MANIFEST_FILE])
    if isinstance(old, dict) and (different := _differences(old, new)):
        say(f"note: replaces the engine in {directory}, which has another {', '.join(different)}")


def _differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Names of what two manifests disagree on, config fields one by one."""
    configs = old.get("config"), new.get("config")
    fields = []
    if isinstance(configs[0], dict) and isinstance(configs[1], dict):
        names = dict.fromkeys([*configs[0], *configs[1]])
        fields = [name for name in names if configs[0].get(name) != configs[1].get(name)]
    return fields + [key for key in _CONFIGURATION if old.get(key) != new.get(key)]


def summary(compiled: CompiledPlan, device: DeviceSpec) -> str:
    """Returns what a user should know of a plan before it is built."""
    plan, memory = compiled.plan, compiled.plan.memory
    named = (
        device.name if device.name == device.infinicore else f"{device.name} ({device.infinicore})"
    )
    emulated = " (emulated on the CPU)" if plan.target.emulated else ""
    return (
        f"{plan.model_name} on {named}{emulated}, {plan.dtype.value}, "
        f"InfiniCore {plan.target.release} {plan.target.infinicore}: "
        f"{format_bytes(memory.weight_bytes)} of weights, "
        f"{format_bytes(memory.kv_bytes_per_token)} of keys and values per token"
    )
