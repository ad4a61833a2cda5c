"""Bad specs: a message with the place and a way out, exit code 2, nothing half-written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.descriptions import spoil


@pytest.fixture
def cli(forked_cli):
    return forked_cli


@dataclass(frozen=True)
class Flaw:
    """A replacement in a description, and what the error must say.

    ``line`` counts from the replaced text's own line; None where the error has no single line.
    """

    id: str
    old: str
    new: str
    says: str
    line: int | None = 0

    def __str__(self) -> str:
        return self.id


MODEL_FLAWS = [
    Flaw("unknown key", "config:\n", "layers: 3\nconfig:\n", r"unknown key 'layers'"),
    Flaw("near-miss key", "architecture:", "architectur:", r"did you mean 'architecture'"),
    Flaw("duplicate key", "  head_dim: 8\n", "  head_dim: 8\n  head_dim: 8\n", "head_dim", 1),
    Flaw("wrong type", "hidden_size: 24", "hidden_size: wide", r"hidden_size.*\n.*got: .*wide"),
    Flaw("float size", "hidden_size: 24", "hidden_size: 24.5", r"hidden_size.*\n.*got: .*24\.5"),
    Flaw("list size", "hidden_size: 24", "hidden_size: [24]", r"hidden_size"),
    Flaw("null size", "hidden_size: 24", "hidden_size: null", r"hidden_size"),
    Flaw("boolean size", "hidden_size: 24", "hidden_size: true", r"hidden_size"),
    Flaw(
        "negative size",
        "intermediate_size: 40",
        "intermediate_size: -40",
        r"intermediate_size.*\n.*got: .*-40",
    ),
    Flaw("zero size", "num_hidden_layers: 3", "num_hidden_layers: 0", r"num_hidden_layers"),
    Flaw("huge size", "hidden_size: 24", "hidden_size: 1e400", r"too large\n.*1e400"),
    Flaw("missing size", "  hidden_size: 24\n", "", r"hidden_size.* missing", None),
    Flaw("odd heads", "num_key_value_heads: 2", "num_key_value_heads: 3", r"3", None),
    Flaw("odd head_dim", "head_dim: 8", "head_dim: 7", r"7", None),
    Flaw("no eps", "rms_norm_eps: 0.01", "rms_norm_eps: .nan", r"finite\n.*\.nan"),
    Flaw("window without size", "  sliding_window: 4\n", "", r"sliding_window' has no size", None),
    Flaw("window of zero", "sliding_window: 4", "sliding_window: 0", r"sliding_window"),
    Flaw(
        "layer_types of the wrong length",
        "[sliding_attention, full_attention, sliding_attention]",
        "[sliding_attention, full_attention]",
        r"layer_types.*(?s:.*2.*3|.*3.*2)",
    ),
    Flaw(
        "unknown layer type", "full_attention,", "ful_attention,", "did you mean 'full_attention'"
    ),
    Flaw("unknown field", "  rope_theta", "  rope_tetha: 3.0\n  rope_theta", "rope_tetha"),
    Flaw(
        "unknown rope type",
        "  rope_theta: 100.0",
        "  rope_theta: 100.0\n  rope_scaling: {rope_type: yarm, factor: 2.0}",
        r"yarm",
        1,
    ),
    Flaw(
        "dynamic rope",
        "  rope_theta: 100.0",
        "  rope_theta: 100.0\n  rope_scaling: {rope_type: dynamic, factor: 2.0}",
        r"dynamic",
        1,
    ),
    Flaw(
        "must equal", "torch_dtype", "hidden_act: gelu\n  torch_dtype", r"hidden_act.*(?s:.*silu)"
    ),
    Flaw("unknown dtype", "torch_dtype: float32", "torch_dtype: float13", r"float13"),
    Flaw("C++ in the name", "name: tiny", "name: 'tiny(); system'", r"name"),
    Flaw("path in the name", "name: tiny", "name: ../../tiny", r"name"),
    Flaw("newline in the name", "name: tiny", 'name: "tiny\\n#define"', r"name"),
    Flaw("no architecture there", "./small.yaml", "./smal.yaml", r"smal\.yaml"),
    Flaw("architecture out of a path", "./small.yaml", "qwen33", r"did you mean 'qwen3'"),
    Flaw("YAML tag", "name: tiny", "name: !!python/object/apply:os.system [id]", r"tag"),
    Flaw("anchor", "head_dim: 8", "head_dim: &d 8", r"anchor"),
    Flaw("merge key", "config:\n", "config:\n  <<: {a: 1}\n", r"<<", 1),
    Flaw("not YAML", "config:\n", "config: {\n", r"tiny\.yaml:\d+", None),
    Flaw(
        "nothing to ignore",
        "config:\n",
        "ignore_config_keys: [rope_tetha]\nconfig:\n",
        r"no config field 'rope_tetha' to ignore(?s:.*did you mean 'rope_theta')",
    ),
    Flaw("eps that float32 loses", "rms_norm_eps: 0.01", "rms_norm_eps: 1e-60", r"too small"),
    Flaw(
        "yarn that shrinks",
        "  rope_theta: 100.0",
        "  rope_theta: 100.0\n  rope_scaling: {rope_type: yarn, factor: 0.5}",
        r"'factor' is out of range",
        1,
    ),
    Flaw("tab", "  head_dim", "\thead_dim", r"tab"),
]

ARCHITECTURE_FLAWS = [
    Flaw("unknown op", "x = rms_norm(h, weight=input", "x = rms_nrom(h, weight=input",
         r"rms_nrom.*(?s:.*did you mean 'rms_norm')"),
    Flaw("unknown value", "a = attention(q, k, v,", "a = attention(q, k, w,", r"'w'"),
    Flaw("unknown argument", "scale=1 / sqrt(head_dim)", "scal=1 / sqrt(head_dim)", r"scal"),
    Flaw("unknown name", "1 / sqrt(head_dim)", "1 / sqrt(hed_dim)", r"did you mean 'head_dim'"),
    Flaw("unknown function", "sqrt(head_dim)", "sqr(head_dim)", r"sqr"),
    Flaw("Python", "1 / sqrt(head_dim)", "__import__('os').system('id')", r"__import__"),
    Flaw("cycle of values", "q = linear(x, weight=self_attn.q_proj,",
         "q = linear(k, weight=self_attn.q_proj,", r"'k'"),
    Flaw("cycle of derived fields",
         "sliding_window: sliding_window if use_sliding_window else none\n",
         "first: second\n    second: first\n", r"first|second", None),
    Flaw("shapes that do not fit", "h = h + linear(silu(gate) * up",
         "h = h + linear(silu(gate) * x", r"40.*24|24.*40"),
    Flaw("quote in a weight", "self_attn.o_proj", "'self_attn.o_proj\"'", r"\.yaml:\d+"),
    Flaw("path in a weight", "weight=mlp.up_proj", "weight=mlp/../up_proj", r"\.yaml:\d+"),
    Flaw("C++ in a layer type", "full_attention: {}", "'full(); //': {}", r"full"),
    Flaw("unknown key", "checkpoint:\n", "chekpoint: 3\ncheckpoint:\n",
         r"did you mean 'checkpoint'"),
    Flaw("a value nobody reads", "  - gate = linear(",
         "  - spare = linear(x, weight=mlp.spare, out=3)\n  - gate = linear(", r"spare"),
    Flaw("subtraction of values", "silu(gate) * up", "(gate - up)", r"no '-' for values"),
    Flaw("attention before the layers", "layer:\n",
         "  - h = attention(h, h, h, scale=1)\nlayer:\n", r"only inside layers"),
    Flaw("rows of a join", "weight=mlp.up_proj,", "weight=rows(concat(mlp.a, mlp.b), 0, 40),",
         r"rows of one tensor"),
    Flaw("C++ in a value", "  - up = linear(", "  - up_ = linear(", r"not a name for a value"),
    Flaw("keyword in a layer type", "  full_attention: {}", "  class: {}", r"C\+\+ keyword"),
    Flaw("table that is no C++ name", "  rope: {head_dim: head_dim}",
         "  aB: {head_dim: head_dim}", r"not a rope table name"),
    Flaw("head_dim that is none", "  rope: {head_dim: head_dim}", "  rope: {head_dim: none}",
         r"needs a head_dim"),
    Flaw("length that is a list", "  rope: {head_dim: head_dim}",
         "  rope: {head_dim: head_dim, original_max_position_embeddings: '[1]'}",
         r"'original_max_position_embeddings' of rope table 'rope' is no size"),
    Flaw("derived float", "    sliding_window: sliding_window if use",
         "    num_hidden_layers: num_hidden_layers / 1\n    sliding_window: sliding_window if use",
         r"num_hidden_layers(?s:.*)3\.0"),
    Flaw("no layers left", "    sliding_window: sliding_window if use",
         "    num_hidden_layers: num_hidden_layers - 3\n    sliding_window: sliding_window if use",
         r"num_hidden_layers(?s:.*)number 0"),
    Flaw("scale that float32 loses", "scale=1 / sqrt(head_dim)", "scale=1e-50", r"'scale' is out"),
    Flaw("scale beyond float32", "scale=1 / sqrt(head_dim)", "scale=1e39", r"'scale' is out"),
    Flaw("division by zero", "1 / sqrt(head_dim)", "1 / (head_dim - head_dim)", r"zero"),
]  # fmt: skip


def assert_nothing_was_written(folder: Path) -> None:
    """Only the descriptions are there."""
    assert {path.name for path in folder.rglob("*") if path.is_file()} <= {
        "tiny.yaml",
        "small.yaml",
    }


@pytest.mark.parametrize("flaw", MODEL_FLAWS, ids=str)
def test_model_spec(flaw, cli, model, tmp_path):
    line = spoil(model, flaw.old, flaw.new)
    error = cli("build", "--spec", model, "--out", tmp_path / "out").refused()
    assert re.search(flaw.says, error), error
    assert re.search(rf"{re.escape(str(model))}:{place(line, flaw)}", error), error
    assert_nothing_was_written(tmp_path)


@pytest.mark.parametrize("flaw", ARCHITECTURE_FLAWS, ids=str)
def test_architecture(flaw, cli, model, tmp_path):
    architecture = model.parent / "small.yaml"
    line = spoil(architecture, flaw.old, flaw.new)
    error = cli("build", "--spec", model, "--out", tmp_path / "out").refused()
    assert re.search(flaw.says, error), error
    assert re.search(rf"{re.escape(str(architecture))}:{place(line, flaw)}", error), error
    assert_nothing_was_written(tmp_path)


def place(line: int, flaw: Flaw) -> str:
    return r"\d+" if flaw.line is None else rf"{line + flaw.line}\b"


def test_every_flaw_of_a_file_is_told_at_once(cli, model):
    spoil(model, "hidden_size: 24", "hidden_size: -1")
    spoil(model, "vocab_size: 97", "vocab_size: many")
    error = cli("build", "--spec", model).refused()
    assert "hidden_size" in error
    assert "vocab_size" in error


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "tiny.yaml"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"[1, 2]\n", "mapping"),
        (b"- " * 5000, "tiny.yaml"),
        (b"{" * 2000, "tiny.yaml"),
        (b"name: &a [1]\nconfig: *a\n", "anchor"),
        (b"%TAG ! tag:x,2000:\n---\nname: !y z\n", "tiny.yaml"),
        (b"a: 1\n---\nb: 2\n", "document"),
    ],
    ids=["empty", "binary", "list", "deep list", "deep mapping", "alias", "tag", "documents"],
)
def test_a_file_that_is_no_spec(text, says, cli, model):
    model.write_bytes(text)
    error = cli("build", "--spec", model, "--emit-only").refused()
    assert says in error
    assert len(error) < 2000


@pytest.mark.parametrize("name", ["qwen3-1.5b", "qwen3-1.7B", "qwen3_1.7b"])
def test_a_near_name_of_a_shipped_spec(name, cli):
    error = cli("build", "--spec", name).refused()
    assert re.search(r"did you mean 'qwen3-\d", error)


def test_a_spec_that_is_not_there(cli):
    error = cli("build", "--spec", "specs/none.yaml").refused()
    assert "specs/none.yaml: model spec not found" in error


@pytest.mark.parametrize("option", ["--spec", "--arch", "--dev"])
def test_a_folder_with_the_name_of_a_description(option, cli, model, tmp_path):
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    spec = [] if option == "--spec" else ["--spec", model]
    error = cli("build", *spec, option, folder).refused()
    assert re.search(rf"{re.escape(str(folder))}(?s:.*)is a file|is a file(?s:.*)folder", error)
    assert "did you mean" not in error


@pytest.mark.parametrize(
    ("given", "options", "says"),
    [
        ("device", ["--spec", "{}"], "a device description, not a model spec\n.*--dev takes"),
        ("device", ["--spec", "qwen3-0.6b", "--arch", "{}"], "a device .*not an arch.*\n.*--dev"),
        ("architecture", ["--spec", "{}"], "an architecture file, not a model spec\n.*--arch"),
        ("architecture", ["--spec", "qwen3-0.6b", "--dev", "{}"], "an arch.*device d.*\n.*--arch"),
        ("model", ["--spec", "qwen3-0.6b", "--dev", "{}"], "a model spec, not a dev.*\n.*--spec"),
        ("model", ["--spec", "qwen3-0.6b", "--arch", "{}"], "a model spec, not an a.*\n.*--spec"),
    ],
)
def test_a_description_of_another_kind_is_one_fault(given, options, says, cli, model, tmp_path):
    """Each of its keys would be one otherwise."""
    device = tmp_path / "device.yaml"
    device.write_text("device: mine\nextends: cambricon\ndtypes: [float16]\n", encoding="utf-8")
    path = {"device": device, "architecture": model.with_name("small.yaml"), "model": model}[given]
    out = tmp_path / "out"
    arguments = [str(path) if option == "{}" else option for option in options]
    error = cli("build", *arguments, "--emit-only", "--out", str(out)).refused()
    assert re.fullmatch(rf"(error: )?{re.escape(str(path))}:\d+: this is {says}.*\n", error), error
    assert not out.exists()


def test_a_device_of_ones_own_with_a_flaw(cli, model, tmp_path):
    device = tmp_path / "mine.yaml"
    device.write_text("device: mine\nextends: cambricn\n", encoding="utf-8")
    error = cli("build", "--spec", model, "--dev", device).refused()
    assert "did you mean 'cambricon'" in error
    assert f"{device}:2" in error
    device.write_text("device: mine\nextends: cambricon\ncolour: red\n", encoding="utf-8")
    error = cli("build", "--spec", model, "--dev", device).refused()
    assert f"{device}:3" in error


def test_devices_that_extend_each_other(cli, model, tmp_path):
    for name, other in (("first", "second"), ("second", "first")):
        text = f"device: {name}\nextends: {tmp_path / other}.yaml\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    cli("build", "--spec", model, "--dev", tmp_path / "first.yaml").refused()
