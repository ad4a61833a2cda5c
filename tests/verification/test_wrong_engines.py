"""Engines whose C++ is wrong against their own graph: the first wrong op is named, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen3_codegen.compile import CompileOptions
from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.verification import Check, engine_limits
from qwen3_codegen.verification.op_stage import check_ops
from qwen3_codegen.verification.script import play
from qwen3_codegen.verification.subject import Subject, compiled_subject
from qwen3_runtime.checkpoint import Checkpoint, open_checkpoint
from tests.e2e.instrumented import VARIABLE, Instrumented, instrument
from tests.verification.subjects import request_for, with_text

pytestmark = [pytest.mark.compile, pytest.mark.slow]

MODEL = "qwen3-window-8"  # two sliding layers, then a full one

# What is done to an engine, as a pattern, and the value that must be named.
NAMED = {
    "portable": {
        r"another number in: ops_\.rms_norm\(x, h, w\.input_layernorm": "layers.0.x",
        r"dropped: ops_\.rms_norm\(k_rms_norm": "layers.0.k_rms_norm",
        r"dropped: ops_\.rms_norm\(q_rms_norm": "layers.0.q_rms_norm",
        r"gate and up swapped": "layers.0.mul",
        r"window 9 instead of 8": "layers.0.a",
        r"window 7 instead of 8": "layers.0.a",
        r"keys and values swapped": "layers.0.a",
        r"sin and cos swapped in: ops_\.rope\(k_rope": "layers.0.k_rope",
        r"the next row of: w\.qkv_proj": "layers.0.qkv",
        r"the next row of: weights_\.lm_head": "epilogue.logits",
    },
    "native": {
        r"another number in: native::RmsNorm<Element, 1, \d+>::run\(x, h,": "layers.0.x",
        r"another number in: native::AppendKeyValue.*k_norm": "layers.0.a.k_norm",
        r"another number in: native::TransformHeads.*q_norm": "layers.0.a.q_norm",
        r"dropped: native::TransformHeads": "layers.0.a.q_norm",
        r"dropped: native::AppendKeyValue": "layers.0.a.v_cache",
        r"dropped: native::PagedAttention": "layers.0.a",
        r"keys and values swapped": "layers.0.a.v_cache",
        r"another frequency": "layers.0.a.q_rope",
        r"another number in: rope_\.rope = angle_tables": "layers.0.a.q_rope",
        r"gate and up swapped": "layers.0.mul",
        r"window 9 instead of 8": "layers.0.a",
        r"the next row of: w\.k_proj": "layers.0.k_proj_linear",
        r"the next row of: w\.k_norm": "layers.0.a.k_norm",
        r"the next row of: w\.q_norm": "layers.0.a.q_norm",
    },
}


class WrongEngine:
    """A compiled engine with a switch at everything that can be wrong in it."""

    def __init__(
        self, path: Path, lowering: str, dtype: DType, out: Path, checkpoint: Checkpoint
    ) -> None:
        self.switches: Instrumented
        options = CompileOptions(dtype=dtype, lowering=lowering)
        spec, device = load_model(str(path)), load_device("cpu")
        build = with_text(self._instrumented, out)
        self.subject: Subject = compiled_subject(spec, device, options, checkpoint, build)
        self.checkpoint = checkpoint

    def _instrumented(self, text: str) -> str:
        self.switches = instrument(text)
        return self.switches.text

    def failures(self) -> list[Check]:
        request = request_for(self.subject.graph)
        limits = engine_limits(request)
        engine = self.subject.traced(limits)
        played = play(engine, request.script, engine.trace)
        checks = check_ops(self.subject, self.checkpoint.read, limits.max_model_len, played)
        return [check for check in checks if check.failed]


@pytest.fixture
def wrong_engine(reference, tmp_path) -> Iterator[Callable[..., WrongEngine]]:
    opened = []

    def make(lowering: str, dtype: DType = DType.F32) -> WrongEngine:
        path = reference(MODEL).path
        opened.append(open_checkpoint(path))
        return WrongEngine(path, lowering, dtype, tmp_path, opened[-1])

    yield make
    for checkpoint in opened:
        checkpoint.close()


def line_of(switches: Instrumented, number: int) -> int | None:
    """Line of the spec that a comment above the switched statement names."""
    found = re.search(rf"wrong(?:_\w+)?\({number}\b", switches.text)
    if found is None:
        return None
    before = switches.text[: found.start()]
    before = before[before.rindex("\nvoid Engine::") :] if "\nvoid Engine::" in before else ""
    lines = re.findall(r"  // \w+\.yaml:(\d+): ", before)
    return int(lines[-1]) if lines else None


PARTS = {
    r"the next row of: w\.(q_norm|k_norm)": r"\1",
    r"another number in: native::TransformHeads": "q_norm",
    r"another number in: native::AppendKeyValue": "k_norm",
    r"(?:dropped|another number in): native::PagedAttention|window": "attention",
    r"dropped: native::AppendKeyValue|keys and values": "v_cache",
    r"another frequency|another number in: rope_": "q_rope",
}
"""The part of a fused attention that is wrong, by what was done; values are named for keys, too,
for both are written at once."""


def value_of(check: Check) -> str:
    """The node's result, whichever of its parts is wrong."""
    return check.name.removesuffix(f".{check.part}").rpartition(".")[2]


def part_of(description: str) -> str | None:
    for pattern, part in PARTS.items():
        if found := re.match(pattern, description):
            return found.expand(part)
    return None


def lines_of(graph: Graph, line: int) -> set[int]:
    """The line of a node, and of a fused one those of what was taken into it."""
    nodes = [node for region in graph.regions() for node in region.nodes]
    (*_, node) = [node for node in nodes if node.location.line == line]
    return {line, *(part.line for part in node.parts.values())}


def readers_of(graph: Graph, weight: str) -> set[str]:
    """Ops that read a weight of this name."""
    return {
        node.op
        for region in graph.regions()
        for node in region.nodes
        if weight in node.inputs.values()
    }


@pytest.mark.parametrize("lowering", ["portable", "native"])
def test_the_wrong_op_is_named_and_no_other(lowering, wrong_engine, monkeypatch):
    engine = wrong_engine(lowering)
    assert engine.failures() == [], "the engine is right, or the switches change something"
    wrongs = engine.switches.wrongs
    named = dict.fromkeys(NAMED[lowering])
    num_alone = num_parts = 0
    for number, description in wrongs.items():
        monkeypatch.setenv(VARIABLE, str(number))
        failures = engine.failures()
        assert failures, f"nobody saw it: {description}"
        first = failures[0]
        line = line_of(engine.switches, number)
        weight = re.match(r"the next row of: \w+\.(\w+) =", description)
        if weight:
            assert first.op in readers_of(engine.subject.graph, weight[1]), description
        elif line is not None:
            named_line = int(first.location.rpartition(":")[2])
            assert named_line in lines_of(engine.subject.graph, line), first.describe()
        if first.op == "rotary_attention" and (part := part_of(description)):
            assert first.part == part, f"{description}: {first.describe()}"
            num_parts += 1
        own = {(value_of(each), each.op) for each in failures}
        one_op = not re.search("frequency|rope_tables|angle_tables|window", description)
        # What a buffer held before may be too large for float32 to go on with.
        if one_op and all(each.max_abs < 100 for each in failures):
            assert len(own) == 1, f"{description}: {own}"
            num_alone += 1
        for pattern in named:
            if named[pattern] is None and re.search(pattern, description):
                named[pattern] = first.name
    assert named == NAMED[lowering]
    assert num_alone > 0.7 * len(wrongs)
    assert num_parts > (20 if lowering == "native" else -1)


IN_HALF = [
    r"dropped: native::\w+",
    r"gate and up swapped",
    r"keys and values swapped",
    r"window [79] instead of 8",
    r"the next row of: w\.\w+_proj",
]


def test_in_half_precision_what_is_larger_than_rounding(wrong_engine, monkeypatch):
    engine = wrong_engine("native", DType.BF16)
    assert engine.failures() == []
    tried = {
        number: description
        for number, description in engine.switches.wrongs.items()
        if any(re.match(pattern, description) for pattern in IN_HALF)
    }
    assert len(tried) > 40
    for number, description in tried.items():
        monkeypatch.setenv(VARIABLE, str(number))
        failures = engine.failures()
        assert failures, f"nobody saw it: {description}"
        line = line_of(engine.switches, number)
        if line is not None and "window" not in description:
            named_line = int(failures[0].location.rpartition(":")[2])
            assert named_line in lines_of(engine.subject.graph, line), description
        if failures[0].op == "rotary_attention" and (part := part_of(description)):
            assert failures[0].part == part, f"{description}: {failures[0].describe()}"


def test_what_is_wrong_in_decodes_only_is_seen(reference, tmp_path):
    """A cache that keeps the first token alone is right in the first step of a sequence."""
    with open_checkpoint(reference(MODEL).path) as checkpoint:

        def stuck(text: str) -> str:
            call = "native::AppendKeyValue<"
            assert call in text
            return text.replace(call, f"if (batch_->query_lens.data[0] > 1) {call}")

        options = CompileOptions(dtype=DType.F32, lowering="native")
        spec, device = load_model(str(reference(MODEL).path)), load_device("cpu")
        build = with_text(stuck, tmp_path)
        subject = compiled_subject(spec, device, options, checkpoint, build)
        # Not the tokens of other tests: memory they gave back may hold just what is not written.
        request = request_for(subject.graph, seed=5)
        limits = engine_limits(request)
        engine = subject.traced(limits)
        played = play(engine, request.script, engine.trace)
        checks = check_ops(subject, checkpoint.read, limits.max_model_len, played)
        first = next(check for check in checks if check.failed)
    assert (first.name, first.op) == ("layers.0.a.v_cache", "rotary_attention")
    assert first.note.startswith("in steps 1, ")
