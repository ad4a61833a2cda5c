"""What the command chooses by itself: layers, lengths, the reference."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qwen3_codegen.cache_contents import clear_cache
from qwen3_codegen.compile import CompileOptions, make_graph
from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.random_checkpoint import first_layers, layers_of_every_kind
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.verification.command import Command, verify_spec
from qwen3_codegen.verification.script import make_script
from qwen3_codegen.verification.subject import compiled_subject
from qwen3_codegen.verification.verifying import default_prompt_len
from qwen3_runtime.engine.capacity import Limits
from tests.cli.descriptions import write_tiny_model


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)


def verify(tmp_path: Path, **choices: object):
    spec = str(write_tiny_model(tmp_path / "spec"))
    command = Command(lowering="native", num_greedy_tokens=2, **choices)
    return verify_spec(spec, None, tmp_path, command, lambda what, done, total: None)


@pytest.mark.compile
def test_without_torch_the_interpreter_is_the_reference(without_torch, tmp_path):
    report = verify(tmp_path)
    assert report.verdict().startswith("PASS")
    assert report.references == ["interpreter of the graph before all passes, float64"]
    (note,) = report.notes
    assert "pip install 'qwen3-codegen[verify]'" in note
    assert "cannot tell whether the spec is right" in note


@pytest.mark.parametrize("reference", ["transformers", "model.py:Model"])
def test_without_torch_a_reference_that_needs_it_is_refused(
    reference, without_torch, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text("class Model: ...")
    with pytest.raises(CodegenError) as caught:
        verify(tmp_path, reference=reference)
    assert "qwen3-codegen[verify]" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides", "count"),
    [
        ("qwen3-1.7b", {}, 2),
        ("qwen3-1.7b", {"num_hidden_layers": "1"}, 1),
        (
            "qwen3-1.7b",
            {"use_sliding_window": "true", "sliding_window": "64", "max_window_layers": "4"},
            5,
        ),
    ],
)
def test_as_many_layers_as_show_every_kind(name, overrides, count):
    spec = load_model(name, overrides=overrides)
    assert layers_of_every_kind(spec) == count
    kept = load_model(name, overrides={**overrides, **first_layers(spec, count)})
    assert len(kept.layers) == count


@pytest.mark.parametrize(("window", "length"), [("4", 32), ("64", 72), ("256", 264), ("4096", 32)])
def test_prompts_look_past_a_window(window, length):
    overrides = {"use_sliding_window": "true", "sliding_window": window, "max_window_layers": "0"}
    graph = make_graph(load_model("qwen3-1.7b", overrides={**overrides, "num_hidden_layers": "1"}))
    assert default_prompt_len(graph, 16) == length
    script = make_script(graph.vocab_size, length, seed=0)
    assert script.max_num_batched_tokens == length
    assert [len(ids) for ids in script.token_ids] == [length + 4, length + 5, 3]


def test_ops_of_mixtures_are_held_to_float32():
    """What an engine of half-precision matrices keeps its values in."""

    def build(compiled, options, notify):
        raise AssertionError("nothing is compiled")

    spec = load_model("qwen3-30b-a3b")
    subject = compiled_subject(spec, load_device("cpu"), CompileOptions(), None, build)
    nodes = [node for region in subject.graph.regions() for node in region.nodes]
    assert {value.type.dtype for node in nodes for value in node.outputs} == {DType.F32}
    assert subject.graph.dtype is DType.BF16


def test_the_cache_is_not_cleared_between_building_and_loading(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN3_CODEGEN_CACHE", str(tmp_path / "cache"))

    def build(compiled, options, notify):
        clear_cache()

    spec = load_model(str(write_tiny_model(tmp_path)))
    subject = compiled_subject(spec, load_device("cpu"), CompileOptions(), None, build)
    with pytest.raises(CodegenError, match="builds or loads an engine"):
        subject.ordinary(Limits())
