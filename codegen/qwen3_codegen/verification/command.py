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

_TRANSFORMERS = "transformers"
_INTERPRETER = "interpreter"


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
    located = locate_checkpoint(model, show_progress=True)
    spec = load_checkpoint_model(
        str(located.path),
        overrides=command.overrides,
        ignore_config_keys=command.ignore_config_keys,
        architecture=command.arch,
        name=located.name,
        own_functions=load_ops(command.ops),
    )
    return _verify(spec, located.path, None, command, progress)


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
    write_random_checkpoint(
        spec,
        path,
        seed=command.seed,
        progress=lambda done, total, _: progress("writing random weights", done, total),
    )
    return _verify(spec, path, reference, command, progress)


def _load(reference: str, command: Command, layers: Mapping[str, str]) -> ModelSpec:
    return load_model(
        reference,
        overrides={**command.overrides, **layers},
        ignore_config_keys=command.ignore_config_keys,
        architecture=command.arch,
        own_functions=load_ops(command.ops),
    )


def _verify(
    spec: ModelSpec, path: Path, name: str | None, command: Command, progress: Progress
) -> Report:
    for note in spec.notes:
        say(f"note: {note}")
    with open_checkpoint(path) as checkpoint:
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
        chosen = _References(spec, path, checkpoint, subject, command, request)
        chosen.check()
        report = verify_engine(subject, request, checkpoint.read, chosen.make, progress)
    report.notes += chosen.notes
    report.subject = {**report.subject, "seed": command.seed, "prompt_len": prompt_len}
    return report


class _References:
    """Which references a command asks for; each is made when the one before is done with."""

    def __init__(
        self,
        spec: ModelSpec,
        path: Path,
        checkpoint: Checkpoint,
        subject: Subject,
        command: Command,
        request: Request,
    ) -> None:
        self._spec = spec
        self._path = path
        self._checkpoint = checkpoint
        self._subject = subject
        self._command = command
        self._request = request
        self._layer_prefix = spec.architecture.checkpoint.layer_prefix
        self.notes: list[str] = []

    def check(self) -> None:
        """Raises CodegenError for a choice that cannot be had, before minutes of work."""
        chosen = self._command.reference
        if chosen == _TRANSFORMERS and (reason := self._why_not_transformers()):
            raise CodegenError("transformers cannot be the reference", got=reason)
        if chosen not in (None, _TRANSFORMERS, _INTERPRETER):
            say(f"note: {chosen} runs as a program of yours")
            user_class(chosen)
        if self._command.against is not None:
            read_index(self._command.against)
        if self._command.dump_tensors is not None:
            check_dump_folder(self._command.dump_tensors)

    def make(self, played: Played[Mapping[str, Array]]) -> Iterator[Reference]:
        """Yields the references."""
        command, graph = self._command, self._subject.graph
        if command.reference is not None or command.against is None:
            yield self._model_reference()
        if command.against is not None:
            yield DumpReference(command.against, played, graph)

    def _model_reference(self) -> Reference:
        chosen = self._command.reference
        if chosen is None:
            reason = self._why_not_transformers()
            chosen = _INTERPRETER if reason else _TRANSFORMERS
            if reason:
                self.notes.append(
                    f"{reason}: the interpreter is the reference, which follows the spec and "
                    "cannot tell whether the spec is right"
                )
        if chosen == _TRANSFORMERS:
            architecture = self._spec.architecture
            return transformers_reference(
                self._path, architecture.huggingface_class, self._subject.graph, self._layer_prefix
            )
        if chosen == _INTERPRETER:
            limits = engine_limits(self._request)
            assert limits.max_model_len is not None
            return InterpreterReference(
                self._subject.frontend_graph,
                self._subject.graph,
                self._checkpoint.read,
                limits.max_model_len,
            )
        graph, prefix = self._subject.graph, self._layer_prefix
        return user_reference(chosen, self._checkpoint, graph, prefix)

    def _why_not_transformers(self) -> str | None:
        name = self._spec.architecture.huggingface_class
        if not has_torch():
            return f"torch is not installed ({INSTALL_HINT})"
        if not knows_architecture(name):
            return f"transformers has no {name}"
        if not self._path.is_dir() or not (self._path / "config.json").is_file():
            return "transformers reads no GGUF file here"
        return None
