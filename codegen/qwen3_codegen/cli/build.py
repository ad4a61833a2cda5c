"""``qwen3-codegen build``: an engine's folder from a spec and a device."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

from qwen3_codegen.build.standalone import SOURCES_FOLDER, has_standalone
from qwen3_codegen.build.toolchain import instruction_set
from qwen3_codegen.cli.options import (
    activation_dtype,
    add_spec_options,
    add_target_options,
    kv_cache_dtype,
    own_functions,
    parse_overrides,
    refuse_unavailable,
)
from qwen3_codegen.compile import (
    CompiledPlan,
    CompileOptions,
    Spelling,
    build_model,
    dtype_notes,
    emit_model,
    plan_model,
)
from qwen3_codegen.progress import format_bytes, say, status
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device, parse_dtype
from qwen3_runtime.engine.manifest import MANIFEST_FILE, TRACED_KEY

_CONFIGURATION = ("architecture", "device", "infinicore", "dtype", "rope", "overrides", TRACED_KEY)
"""Entries of a manifest, beside the config, that make an engine another one."""

_EXAMPLES = """\
examples:
  qwen3-codegen build --spec qwen3-1.7b --dev cpu
  qwen3-codegen build --spec qwen3-1.7b --dev mlu --emit-only
  qwen3-codegen build --spec qwen3-1.7b --dev cpu --isa avx2 --standalone
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
        "--standalone",
        action="store_true",
        help="copy the C++ sources in, so that pip or CMake can build the folder elsewhere",
    )
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
        own_functions=own_functions(args),
    )
    for note in spec.notes:
        say(f"note: {note}")
    options = CompileOptions(
        dtype=parse_dtype(args.dtype) if args.dtype else None,
        activation_dtype=activation_dtype(args),
        kv_cache_dtype=kv_cache_dtype(args),
        infinicore=args.infinicore,
        release=args.infinicore_api,
        isa=args.isa,
        lowering=args.lowering,
        dump_ir=args.dump_ir,
        trace=args.trace,
        standalone=args.standalone,
        spelling=Spelling(spec=args.spec, dev=args.dev, arch=args.arch, ops=tuple(args.ops)),
    )
    device = load_device(args.dev)
    compiled = plan_model(spec, device, options)
    for note in dtype_notes(spec, device, compiled, options):
        say(f"note: {note}")
    say(summary(compiled))
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
    if compiled.sources is None and has_standalone(directory):
        say(f"note: removes {directory / SOURCES_FOLDER}; with --standalone it would stay")
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
    different = fields + [key for key in _CONFIGURATION if old.get(key) != new.get(key)]
    if "dtype" in different:
        return different
    if _activation_dtype(old) != _activation_dtype(new):
        different.append("activation_dtype")
    if _cache_dtypes(old) != _cache_dtypes(new):
        different.append("kv_cache_dtype")
    return different


def _activation_dtype(manifest: Mapping[str, object]) -> tuple[object, object]:
    """And what may be done to values in products, which asking for float32 decides, too."""
    return manifest.get("activation_dtype", manifest.get("dtype")), manifest.get("row_dtype")


def _cache_dtypes(manifest: Mapping[str, object]) -> set[object]:
    groups = manifest.get("cache_groups")
    groups = groups if isinstance(groups, list) else []
    return {group.get("dtype") for group in groups if isinstance(group, dict)}


def summary(compiled: CompiledPlan) -> str:
    """Returns what a user should know of a plan before it is built."""
    plan, memory = compiled.plan, compiled.plan.memory
    emulated = " (emulated on the CPU)" if plan.target.emulated else ""
    beside = f" with {plan.activation_dtype.value} activations" if plan.activation_dtype else ""
    return (
        f"{plan.model_name} on {plan.target.title}{emulated}, {plan.dtype.value}{beside}, "
        f"InfiniCore {plan.target.release} {plan.target.infinicore}: "
        f"{format_bytes(memory.weight_bytes)} of weights, "
        f"{format_bytes(memory.kv_bytes_per_token)} of keys and values per token"
    )
