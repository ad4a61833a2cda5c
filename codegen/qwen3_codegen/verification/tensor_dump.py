"""Values of an engine in a folder: written here, compared with there.

``index.json`` names the steps, with the tokens they were made of; ``step-NN.safetensors`` holds
the values of one step by name, float32 ``[num_tokens, ...]``. A folder made elsewhere may hold any
part of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from qwen3_codegen.emission.render import write_if_changed
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.verification.graph_order import GraphOrder
from qwen3_codegen.verification.measure import Array
from qwen3_codegen.verification.observed import Observations, Observed
from qwen3_codegen.verification.script import Played
from qwen3_runtime.engine.batch import Batch, FloatRows

__all__ = ["DumpReference", "check_dump_folder", "read_index", "write_dump"]

DUMP_FORMAT = 1
INDEX_FILE = "index.json"


def write_dump(
    directory: Path,
    played: Played[Mapping[str, Array]],
    graph: Graph,
    subject: Mapping[str, object],
) -> None:
    """Writes every value of every step, the index last.

    Raises:
        CodegenError: The folder holds something that is no such dump.
    """
    check_dump_folder(directory)
    directory.mkdir(parents=True, exist_ok=True)
    order = GraphOrder(graph)
    steps = []
    for number, (batch, trace) in enumerate(zip(played.batches, played.results, strict=True)):
        name = f"step-{number:02d}.safetensors"
        arrays = {key: np.ascontiguousarray(array) for key, array in trace.items()}
        save_file(arrays, directory / name)
        steps.append({"file": name, **_tokens(batch)})
    names = sorted((name for name in played.results[0] if name in order), key=order.rank)
    index = {
        "format": DUMP_FORMAT,
        "subject": subject,
        "steps": steps,
        "values": [_described(name, order) for name in names],
    }
    write_if_changed(directory / INDEX_FILE, json.dumps(index, indent=2, allow_nan=False) + "\n")


def check_dump_folder(directory: Path) -> None:
    """Raises CodegenError when a folder holds something that is no dump."""
    if directory.exists() and any(directory.iterdir()) and not (directory / INDEX_FILE).is_file():
        raise CodegenError(
            "the folder for tensors exists and holds something else",
            where=directory,
            hint="name another: --dump-tensors DIR",
        )


def _tokens(batch: Batch) -> dict[str, list[int]]:
    fields = ("token_ids", "positions", "query_lens", "seq_lens", "logit_rows")
    return {field: getattr(batch, field).tolist() for field in fields}


def _described(name: str, order: GraphOrder) -> dict[str, object]:
    placed = order.producer(name)
    op = None if placed is None else placed.node.op
    location = None if placed is None else str(placed.location)
    return {"name": name, "op": op, "location": location}


class DumpReference:
    """A folder that ``write_dump`` or another program filled.

    Args:
        directory: The folder.
        played: The steps it must have been made of.
        graph: The engine's.

    Raises:
        CodegenError: It is none, or was made of other tokens.
    """

    def __init__(
        self,
        directory: Path,
        played: Played[Mapping[str, Array]],
        graph: Graph,
    ) -> None:
        self._directory = directory
        self._played = played
        self._order = GraphOrder(graph)
        self._logits = f"epilogue.{graph.epilogue.results[0]}"
        self._index = read_index(directory)
        for number, (step, batch) in enumerate(zip(self._steps(), played.batches, strict=True)):
            for field, values in _tokens(batch).items():
                if step.get(field, values) != values:
                    raise CodegenError(
                        f"step {number} of the folder is made of other {field}",
                        where=directory / INDEX_FILE,
                        hint="the same --model or --spec, --seed and --prompt-len make the same "
                        "steps",
                    )

    @property
    def title(self) -> str:
        """The folder and whose values they are."""
        subject = self._index.get("subject")
        device = subject.get("device") if isinstance(subject, dict) else None
        return f"tensors in {self._directory}" + (f" ({device})" if device else "")

    def observe(self, sequences: Sequence[Sequence[int]]) -> Observations:
        """Reads the values there are."""
        traces = [self._read(step) for step in self._steps()]
        there = Played(self._played.batches, self._played.owners, tuple(traces))
        shared = [
            name
            for name in traces[0]
            if name in self._order
            and all(self._fits(name, number, trace) for number, trace in enumerate(traces))
        ]
        observations = Observations()
        for name in shared:
            rows = there.by_sequence(lambda trace, name=name: trace[name])  # type: ignore[misc]
            observations.values.append(Observed(name=name, source=name, rows=rows))
            if name == self._logits:
                observations.logits = rows
        if not shared:
            raise CodegenError("the folder has no value of this engine", where=self._directory)
        observations.notes.append(self._covered(shared))
        return observations

    def _covered(self, shared: Sequence[str]) -> str:
        """How many values are compared.

        Raises:
            CodegenError: Some layer has none: to pass would say nothing of it.
        """
        own = [name for name in self._played.results[0] if name in self._order]
        own_places, covered = (
            {self._order.place(name) for name in names} for names in (own, shared)
        )
        counted = f"{len(shared)} of {len(own)} values of the engine are in {self._directory}"
        missing = [place for place in self._order.places if place in own_places - covered]
        if missing:
            counted = f"{counted}; none of {_listed(missing)}"
        if any(self._order.is_layer(place) for place in missing):
            raise CodegenError(
                "the folder has no value of some layers",
                where=self._directory,
                got=counted,
                expected="a value of every layer at least",
                hint="`qwen3-codegen verify ... --dump-tensors DIR` writes all of them; an engine "
                "of the other lowering has fewer names in common",
            )
        return counted

    def logits(self, sequences: Sequence[Sequence[int]]) -> list[FloatRows] | None:
        """What was not recorded is not known."""
        return None

    def _fits(self, name: str, number: int, trace: Mapping[str, Array]) -> bool:
        """Engines of two lowerings share some names; a value of another shape is another value."""
        own = self._played.results[number].get(name)
        return name in trace and own is not None and trace[name].size == own.size

    def _steps(self) -> list[Mapping[str, Any]]:
        steps = self._index.get("steps")
        if not isinstance(steps, list) or len(steps) != len(self._played.batches):
            raise CodegenError(
                "the folder holds other steps",
                where=self._directory / INDEX_FILE,
                got=f"{len(steps)} steps" if isinstance(steps, list) else "no steps",
                expected=f"{len(self._played.batches)} steps",
                hint="the same --prompt-len makes the same steps",
            )
        return steps

    def _read(self, step: Mapping[str, Any]) -> dict[str, Array]:
        name = step.get("file")
        if not isinstance(name, str) or Path(name).name != name:
            raise CodegenError(
                "a step names no file of the folder",
                where=self._directory / INDEX_FILE,
                got=repr(name)[:80],
            )
        try:
            return load_file(self._directory / name)
        except (OSError, SafetensorError) as error:
            raise CodegenError(
                "tensors cannot be read", where=self._directory / name, got=error
            ) from None


def _listed(places: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(places) - 4} more" if len(places) > 4 else ""
    return f"{', '.join(places[:4])}{more}"


def read_index(directory: Path) -> Mapping[str, Any]:
    """Returns the index of a folder of tensors.

    Raises:
        CodegenError: There is none of this version.
    """
    file = directory / INDEX_FILE
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CodegenError(
            "the index of dumped tensors cannot be read",
            where=file,
            got=error,
            hint="qwen3-codegen verify ... --dump-tensors DIR writes such a folder",
        ) from None
    if not isinstance(index, dict) or index.get("format") != DUMP_FORMAT:
        raise CodegenError(
            "the folder is no dump of this version", where=file, expected=f"format {DUMP_FORMAT}"
        )
    return index
