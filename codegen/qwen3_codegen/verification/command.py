"""From what the command line says to a report: checkpoint, engine, references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qwen3_codegen.compile import CompileOptions, Spelling
from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.hub import locate_checkpoint
from qwen3_codegen.own_ops import load_ops
from qwen3_codegen.progress import say
from qwen3_codegen.random_checkpoint import (
    first_layers,
    layers_of_every_kind,
    write_random_checkpoint,
)
from qwen3_codegen.spec.catalog import load_checkpoint_model, load_model
from qwen3_codegen.spec.device import load_device, parse_dtype
from qwen3_codegen.spec.model import ModelSpec
from qwen3_codegen.spec.resolve import with_dtype
from qwen3_codegen.verification.interpreter_reference import InterpreterReference
from qwen3_codegen.verification.measure import Array
from qwen3_codegen.verification.observed import Reference
from qwen3_codegen.verification.report import Report
from qwen3_codegen.verification.script import Played, make_script
from qwen3_codegen.verification.subject import Subject, compiled_subject
from qwen3_codegen.verification.tensor_dump import DumpReference, check_dump_folder, read_index
from qwen3_codegen.verification.torch_reference import (
    INSTALL_HINT,
    INTERPRETER,
    TRANSFORMERS,
    UserClass,
    has_torch,
    knows_architecture,
    transformers_reference,
    user_class,
    user_reference,
)
from qwen3_codegen.verification.verifying import (
    Progress,
    Request,
    default_prompt_len,
    engine_limits,
    verify_engine,
)
from qwen3_runtime.checkpoint import Checkpoint, open_checkpoint

__all__ = ["Command", "verify_model", "verify_spec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Choices of the command line; see ``qwen3-codegen verify --help``."""

    dev: str = "cpu"
    dtype: str | None = None
    activation_dtype: DType | None = None
    """Of values between ops; None takes the lowering's own choice."""
    kv_cache_dtype: DType | None = None
    """Of keys and values; None leaves the choice to the model."""
    infinicore: str = "embedded"
    infinicore_api: str | None = None
    isa: str = "native"
    lowering: str | None = None
    arch: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    ignore_config_keys: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    """Folders with ops of the user's own."""
    seed: int = 0
    prompt_len: int | None = None
    num_greedy_tokens: int = 16
    reference: str | None = None
    against: Path | None = None
    dump_tensors: Path | None = None

    def options(self, spec: str | None) -> CompileOptions:
        """Returns what an engine is compiled with."""
        return CompileOptions(
            dtype=parse_dtype(self.dtype) if self.dtype else None,
            activation_dtype=self.activation_dtype,
            kv_cache_dtype=self.kv_cache_dtype,
            infinicore=self.infinicore,
            release=self.infinicore_api,
            isa=self.isa,
            lowering=self.lowering,
            spelling=Spelling(spec=spec, dev=self.dev, arch=self.arch, ops=self.ops),
        )


def verify_model(model: str, command: Command, progress: Progress) -> Report:
    """Verifies the engine of a checkpoint on its weights.

    Raises:
        CodegenError: A choice does not fit.
        RuntimeFault: The checkpoint does not fit.
    """
    mine = _check_sources(command)
    located = locate_checkpoint(model, show_progress=True)
    spec = load_checkpoint_model(
        str(located.path),
        overrides=command.overrides,
        ignore_config_keys=command.ignore_config_keys,
        architecture=command.arch,
        name=located.name,
        own_functions=load_ops(command.ops),
    )
    chosen = _Chosen(spec, located.path, command, mine)
    return _verify(chosen, None, progress)


def verify_spec(
    reference: str, num_layers: int | None, folder: Path, command: Command, progress: Progress
) -> Report:
    """Verifies the engine of a spec on random weights, at its true shapes.

    Args:
        reference: Name or file of the spec.
        num_layers: First layers to keep; None keeps every kind of layer, at least two.
        folder: Empty folder for the checkpoint.
        command: The other choices.
        progress: Told while it runs.

    Raises:
        CodegenError: The spec or a choice does not fit, or the disk has no room.
    """
    whole = _load(reference, command, {})
    kept = num_layers or layers_of_every_kind(whole)
    spec = _load(reference, command, first_layers(whole, kept))
    if command.dtype:
        spec = with_dtype(spec, parse_dtype(command.dtype))
    path = folder / "checkpoint"
    chosen = _Chosen(spec, path, command, _check_sources(command))
    write_random_checkpoint(
        spec,
        path,
        seed=command.seed,
        progress=lambda done, total, _: progress("writing random weights", done, total),
    )
    return _verify(chosen, reference, progress)


def _load(reference: str, command: Command, layers: Mapping[str, str]) -> ModelSpec:
    return load_model(
        reference,
        overrides={**command.overrides, **layers},
        ignore_config_keys=command.ignore_config_keys,
        architecture=command.arch,
        own_functions=load_ops(command.ops),
    )


def _check_sources(command: Command) -> UserClass | None:
    """Looks at what the command line names, before gigabytes are fetched or written.

    Returns:
        The class of ``--reference FILE.py:Class``; its file has been run.

    Raises:
        CodegenError: There is no such reference, or a folder is not what it should be.
    """
    if command.against is not None:
        read_index(command.against)
    if command.dump_tensors is not None:
        check_dump_folder(command.dump_tensors)
    if command.reference in (None, TRANSFORMERS, INTERPRETER):
        return None
    return user_class(command.reference)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A model, and what it is compared with.

    Raises:
        CodegenError: transformers is asked for and cannot be the reference.
    """

    spec: ModelSpec
    path: Path
    """Of the checkpoint, which may be yet to be written, as a folder."""
    command: Command
    mine: UserClass | None
    """The class of ``--reference FILE.py:Class``."""

    def __post_init__(self) -> None:
        if self.command.reference == TRANSFORMERS and (reason := self.why_not_transformers()):
            raise CodegenError("transformers cannot be the reference", got=reason)

    def why_not_transformers(self) -> str | None:
        """Returns why transformers cannot be the reference, None where it can."""
        name = self.spec.architecture.huggingface_class
        if not has_torch():
            return f"torch is not installed ({INSTALL_HINT})"
        if not knows_architecture(name):
            return f"transformers has no {name}"
        if self.path.exists() and not (self.path / "config.json").is_file():
            return "transformers reads no GGUF file here"
        return None


def _verify(chosen: _Chosen, name: str | None, progress: Progress) -> Report:
    spec, command = chosen.spec, chosen.command
    for note in spec.notes:
        say(f"note: {note}")
    with open_checkpoint(chosen.path) as checkpoint:
        options, device = command.options(name), load_device(command.dev)
        subject = compiled_subject(spec, device, options, checkpoint)
        prompt_len = command.prompt_len or default_prompt_len(
            subject.graph, command.num_greedy_tokens
        )
        request = Request(
            script=make_script(subject.graph.vocab_size, prompt_len, command.seed),
            num_greedy_tokens=command.num_greedy_tokens,
            dump_tensors=command.dump_tensors,
        )
        references = _References(chosen, checkpoint, subject, request)
        report = verify_engine(subject, request, checkpoint.read, references.make, progress)
    report.notes += references.notes
    report.subject = {**report.subject, "seed": command.seed, "prompt_len": prompt_len}
    return report


class _References:
    """Gives the references a command asks for; each is made when the one before is done with."""

    def __init__(
        self, chosen: _Chosen, checkpoint: Checkpoint, subject: Subject, request: Request
    ) -> None:
        self._chosen = chosen
        self._checkpoint = checkpoint
        self._subject = subject
        self._request = request
        self.notes: list[str] = []

    def make(self, played: Played[Mapping[str, Array]]) -> Iterator[Reference]:
        """Yields the references."""
        command, graph = self._chosen.command, self._subject.graph
        if command.reference is not None or command.against is None:
            yield self._model_reference()
        if command.against is not None:
            yield DumpReference(command.against, played, graph)

    def _model_reference(self) -> Reference:
        chosen, graph = self._chosen, self._subject.graph
        prefix = chosen.spec.architecture.checkpoint.layer_prefix
        if chosen.mine is not None:
            return user_reference(chosen.mine, self._checkpoint, graph, prefix)
        name, reason = chosen.command.reference, None
        if name is None and (reason := chosen.why_not_transformers()):
            self.notes.append(
                f"{reason}: the interpreter is the reference, which follows the spec and "
                "cannot tell whether the spec is right"
            )
        if name == INTERPRETER or reason is not None:
            limits = engine_limits(self._request)
            assert limits.max_model_len is not None
            return InterpreterReference(
                self._subject.frontend_graph, graph, self._checkpoint.read, limits.max_model_len
            )
        huggingface_class = chosen.spec.architecture.huggingface_class
        return transformers_reference(chosen.path, huggingface_class, graph, prefix)
