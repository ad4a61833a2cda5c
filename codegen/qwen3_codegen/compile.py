"""The driver: a model and a device in, a folder with an engine that can be imported out.

Reads top to bottom like the pipeline: spec, graph, passes, plan, emission, build.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qwen3_codegen.build.builder import BuildRequest, BuildResult, build_engine
from qwen3_codegen.build.cache import content_key
from qwen3_codegen.build.standalone import (
    remove_standalone,
    standalone_sources,
    write_standalone,
)
from qwen3_codegen.build.toolchain import find_toolchain, instruction_set
from qwen3_codegen.dtypes import DType
from qwen3_codegen.emission.emit import emit_engine
from qwen3_codegen.emission.engine_view import OWN_FOLDER, OWN_OPS_FILE
from qwen3_codegen.emission.render import write_files
from qwen3_codegen.errors import BuildError, CodegenError, LoweringError
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.infinicore.api import InfiniCoreApi, load_api
from qwen3_codegen.infinicore.install import InstalledInfiniCore, default_root, probe
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.printer import format_graph
from qwen3_codegen.ir.verify import verify
from qwen3_codegen.passes import PIPELINES, run_pipeline
from qwen3_codegen.paths import cache_dir
from qwen3_codegen.plan.digest import content_digest
from qwen3_codegen.plan.planner import PlanRequest, plan_engine
from qwen3_codegen.plan.records import EnginePlan, TargetPlan
from qwen3_codegen.spec.config_source import parse_overrides
from qwen3_codegen.spec.device import DeviceSpec
from qwen3_codegen.spec.model import ModelSpec
from qwen3_codegen.spec.resolve import with_dtype

EMBEDDED = "embedded"
_MODULE_NAME = re.compile(r"[^a-z0-9]+")
_HEADER = re.compile(rf"\b{OWN_FOLDER}/([\w.-]+):\d+")
_HEADER_WITH_ERROR = re.compile(rf"{_HEADER.pattern}:\d+: (?:fatal )?error:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """How the user named things, for the command that makes an engine again."""

    spec: str | None = None
    """None takes the model's name."""
    dev: str | None = None
    """None takes the device's name."""
    arch: str | None = None
    """None: the architecture that the model names."""
    ops: tuple[str, ...] = ()
    """Folders with ops of the user's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """What may be chosen beside the model and the device."""

    dtype: DType | None = None
    """None takes the model's own where the device has it."""
    activation_dtype: DType | None = None
    """Of values between ops; None takes the lowering's own choice."""
    kv_cache_dtype: DType | None = None
    """Of keys and values; None leaves the choice to the model."""
    infinicore: str = EMBEDDED
    """``embedded``, a release that was installed (``0.1.0``), or an INFINI_ROOT folder."""
    release: str | None = None
    """API release; None takes the device's, or the installed library's."""
    isa: str = "native"
    lowering: str | None = None
    """None takes the device's; an installed InfiniCore is always called portably."""
    dump_ir: Path | None = None
    """Folder for the graph after every pass."""
    trace: bool = False
    """Whether every value can be looked at; see ``CompiledEngine.trace``."""
    standalone: bool = False
    """Whether the C++ sources that the engine needs are copied into its folder."""
    spelling: Spelling = field(default_factory=Spelling)


@dataclass(frozen=True, slots=True)
class CompiledPlan:
    """Everything that is known before a compiler runs."""

    plan: EnginePlan
    api: InfiniCoreApi
    files: Mapping[str, str]
    installed: InstalledInfiniCore | None
    sources: Mapping[str, str] | None = None
    """Files of the runtime that a standalone engine needs, by path; None for all others."""


def module_name(spec: ModelSpec, device: DeviceSpec) -> str:
    """Returns the importable name of an engine: ``qwen3-1.7b`` on ``mlu`` is qwen3_1_7b_mlu."""
    name = _MODULE_NAME.sub("_", f"{spec.name}_{device.label}".lower()).strip("_")
    return f"model_{name}" if name[0].isdigit() else name


def make_graph(
    spec: ModelSpec, dump_ir: Path | None = None, *, lowering: str = "portable"
) -> Graph:
    """Returns the verified graph of a model after all passes of a lowering."""
    graph = build_graph(spec)
    verify(graph)
    passes = PIPELINES[lowering]
    if dump_ir is None:
        return run_pipeline(graph, passes=passes)
    texts: dict[str, str] = {}

    def dump(name: str, after: Graph) -> None:
        texts[f"{len(texts):02d}-{name}.txt"] = format_graph(after)

    graph = run_pipeline(graph, dump, passes=passes)
    write_files(dump_ir, texts)
    return graph


def plan_model(spec: ModelSpec, device: DeviceSpec, options: CompileOptions) -> CompiledPlan:
    """Carries a model from spec to emitted text; nothing is written but ``dump_ir``.

    Raises:
        CodegenError: The model or a choice does not fit the device.
    """
    _check_standalone(options)
    spec = with_dtype(spec, _dtype(spec, device, options))
    installed = _installed(device, options)
    api = load_api(_release(device, options, installed))
    emulated = not device.is_host and installed is None
    target = TargetPlan(
        name=device.name,
        device=device.infinicore,
        enumerator=api.device_constant(device.infinicore),
        lowering=_lowering(device, options, installed),
        release=api.release,
        emulated=emulated,
        infinicore="embedded" if installed is None else "installed",
    )
    request = PlanRequest(
        module_name=module_name(spec, device),
        architecture=spec.architecture.name,
        target=target,
        api=api,
        transpose_linear_weights=device.transpose_linear_weights,
        ignored_tensors=spec.architecture.checkpoint.ignore,
        spec_facts=_spec_facts(spec),
        overrides=_overrides(spec),
        activation_dtype=options.activation_dtype,
        kv_cache_dtype=options.kv_cache_dtype,
        digests={"spec": content_digest(spec), "device": content_digest(device)},
        trace=options.trace,
    )
    graph = make_graph(spec, options.dump_ir, lowering=target.lowering)
    plan = plan_engine(graph, request)
    isa_flags = instruction_set(options.isa).project_flags
    files = emit_engine(plan, api, _command(spec, device, options), isa_flags)
    sources = _sources(plan, files, options)
    return CompiledPlan(plan, api, files, installed, sources)


def dtype_notes(
    spec: ModelSpec, device: DeviceSpec, compiled: CompiledPlan, options: CompileOptions
) -> tuple[str, ...]:
    """Returns what the user should know where an engine computes in a dtype nobody asked for."""
    chosen = compiled.plan.dtype
    if options.dtype is not None or chosen is spec.dtype:
        return ()
    return (
        f"{device.label} does not compute in {spec.dtype.value}, the model's dtype; "
        f"{chosen.value} is used",
    )


def emit_model(compiled: CompiledPlan, out: Path) -> Path:
    """Writes an engine's files without compiling them and returns its folder."""
    directory = out / compiled.plan.module_name
    write_files(directory, compiled.files)
    _put_sources(directory, compiled)
    return directory


def build_model(
    compiled: CompiledPlan,
    out: Path,
    options: CompileOptions,
    notify: Callable[[str], None],
    *,
    c_library: bool = True,
    force: bool = False,
) -> BuildResult:
    """Writes an engine's files and compiles them.

    Args:
        compiled: The planned model.
        out: Folder that holds the engine's folder.
        options: As given to ``plan_model``.
        notify: Told what is being done.
        c_library: Whether the C library is wanted beside the Python module.
        force: Compiles the engine though it is here or in the cache.

    Raises:
        BuildError: Something did not compile.
    """
    directory = out / compiled.plan.module_name
    request = BuildRequest(
        toolchain=find_toolchain(),
        isa=instruction_set(options.isa),
        release=compiled.api.release,
        installed=compiled.installed,
        c_library=c_library,
    )
    _put_sources(directory, compiled)
    try:
        return build_engine(directory, compiled.files, request, notify, force=force)
    except BuildError as error:
        raise _naming_own_headers(error, compiled.plan) from None


def _naming_own_headers(error: BuildError, plan: EnginePlan) -> BuildError:
    """The same error; where the compiler speaks of headers of the user's, the message does too."""
    output = error.hint or ""
    names = _HEADER_WITH_ERROR.findall(output) or _HEADER.findall(output)
    if not plan.own_headers or not names:
        return error
    return BuildError(
        f"your {' and '.join(dict.fromkeys(names))} did not compile",
        where=error.where,
        got=error.got,
        expected=f"C++17 without warnings; the copies in {OWN_FOLDER}/ are what was compiled",
        hint=error.hint,
    )


def _sources(
    plan: EnginePlan, files: Mapping[str, str], options: CompileOptions
) -> Mapping[str, str] | None:
    if not options.standalone:
        return None
    return standalone_sources(files, plan.target.release, plan.operators)


def _check_standalone(options: CompileOptions) -> None:
    if options.standalone and options.infinicore != EMBEDDED:
        raise CodegenError(
            "a standalone engine brings InfiniCore along, and an installed one cannot be copied",
            got=f"--standalone --infinicore {options.infinicore}",
            hint="leave one of them out",
        )


def _put_sources(directory: Path, compiled: CompiledPlan) -> None:
    if not compiled.plan.own_headers:  # an earlier build may have had some
        (directory / OWN_OPS_FILE).unlink(missing_ok=True)
        shutil.rmtree(directory / OWN_FOLDER, ignore_errors=True)
    if compiled.sources is None:
        remove_standalone(directory)
    else:
        write_standalone(directory, compiled.sources)


def build_in_cache(
    compiled: CompiledPlan, options: CompileOptions, notify: Callable[[str], None]
) -> BuildResult:
    """Compiles an engine into the user's cache, in a folder of its own content's name.

    For Python alone: there is no C library beside the module.

    Raises:
        BuildError: Something did not compile.
    """
    infinicore = compiled.installed.root if compiled.installed else EMBEDDED
    key = content_key([*compiled.files.values(), options.isa, str(infinicore)])
    out = cache_dir() / "models" / key
    return build_model(compiled, out, options, notify, c_library=False)


def _command(spec: ModelSpec, device: DeviceSpec, options: CompileOptions) -> str:
    """The command line that makes an engine again; of a path it has the last part alone."""
    named = options.spelling
    words = ["qwen3-codegen", "build", "--spec", _without_folders(named.spec or spec.name)]
    words += ["--dev", _without_folders(named.dev or device.label)]
    if named.arch is not None:
        words += ["--arch", _without_folders(named.arch)]
    for folder in named.ops:
        words += ["--ops", _without_folders(folder)]
    for key, text in spec.overrides.items():
        words += ["--set", f"{key}={text}"]
    for key in spec.ignored_config_keys:
        words += ["--ignore-config-key", key]
    if options.dtype is not None:
        words += ["--dtype", options.dtype.value]
    if options.activation_dtype is not None:
        words += ["--activation-dtype", options.activation_dtype.value]
    if options.kv_cache_dtype is not None:
        words += ["--kv-cache-dtype", options.kv_cache_dtype.value]
    if options.infinicore != EMBEDDED:
        words += ["--infinicore", _without_folders(options.infinicore)]
    if options.lowering is not None:
        words += ["--lowering", options.lowering]
    if options.release is not None:
        words += ["--infinicore-api", options.release]
    if options.isa != CompileOptions().isa:
        words += ["--isa", options.isa]
    if options.trace:
        words.append("--trace")
    if options.standalone:
        words += ["--standalone"]
    return shlex.join(words)


def _without_folders(text: str) -> str:
    """A name as it is, a path without what only this machine has."""
    return Path(text).name or Path(text).resolve().name


def _dtype(spec: ModelSpec, device: DeviceSpec, options: CompileOptions) -> DType:
    wanted = options.dtype or spec.dtype
    if wanted in device.dtypes:
        return wanted
    if options.dtype is None:
        return device.dtypes[0]
    raise LoweringError(
        f"device '{device.label}' does not compute in {wanted.value}",
        where=device.location,
        expected=", ".join(dtype.value for dtype in device.dtypes),
    )


def _lowering(
    device: DeviceSpec, options: CompileOptions, installed: InstalledInfiniCore | None
) -> str:
    wanted = options.lowering or ("portable" if installed else device.lowering)
    if wanted == "native" and not device.is_host:
        raise LoweringError(
            f"device '{device.label}' has no native lowering",
            where=device.location,
            expected="portable",
        )
    if wanted == "native" and installed is not None:
        raise CodegenError(
            "the native lowering calls no operator of an installed InfiniCore",
            got=f"--infinicore {options.infinicore}",
            hint="leave --lowering or --infinicore out",
        )
    return wanted


def _installed(device: DeviceSpec, options: CompileOptions) -> InstalledInfiniCore | None:
    if options.infinicore == EMBEDDED:
        return None
    path = Path(options.infinicore)
    if options.infinicore == "0.1.0" and not path.is_dir():
        path = default_root(options.infinicore)
    installed = probe(path)
    if installed.devices is not None and device.infinicore not in installed.devices:
        raise CodegenError(
            f"this InfiniCore was not built for '{device.label}'",
            where=installed.root,
            got=", ".join(installed.devices),
            expected=device.infinicore,
            hint="leave --infinicore out to emulate the device, or give the folder of an "
            "InfiniCore that has it: --infinicore DIR",
        )
    return installed


def _release(
    device: DeviceSpec, options: CompileOptions, installed: InstalledInfiniCore | None
) -> str:
    if installed is None:
        return options.release or device.release
    if options.release not in (None, installed.release):
        raise CodegenError(
            "the installed InfiniCore is of another API release",
            where=installed.root,
            got=installed.release,
            expected=options.release,
            hint="leave --infinicore-api out",
        )
    return installed.release


def _spec_facts(spec: ModelSpec) -> Mapping[str, object]:
    return {name: _plain(value) for name, value in spec.config.items()}


def _overrides(spec: ModelSpec) -> Mapping[str, object]:
    parsed = parse_overrides(spec.overrides)
    return {
        "config": {name: _plain(value) for name, value in parsed.items()},
        "ignored_config_keys": list(spec.ignored_config_keys),
    }


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value


__all__ = [
    "EMBEDDED",
    "CompileOptions",
    "CompiledPlan",
    "Spelling",
    "build_in_cache",
    "build_model",
    "dtype_notes",
    "emit_model",
    "make_graph",
    "module_name",
    "plan_model",
]
