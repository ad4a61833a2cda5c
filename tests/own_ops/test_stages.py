"""Ops of the user's own in every stage, as the built-in ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from qwen3_codegen import LLM
from qwen3_codegen.cli.main import main
from qwen3_codegen.compile import CompileOptions, Spelling, emit_model, plan_model
from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import CodegenError, LoweringError, SpecError
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.ir.verify import verify
from qwen3_codegen.own_ops import load_ops
from qwen3_codegen.passes import PIPELINES, run_pipeline
from qwen3_codegen.random_checkpoint import write_random_checkpoint
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.spec.model import ModelSpec
from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.engine.prefill import prompt_logits
from tests.own_ops.models import OPS as FOLDER
from tests.own_ops.models import write_own_model
from tests.reference.models import assert_logits_match

PROMPTS = [np.random.default_rng(n).integers(0, 97, size=n).tolist() for n in (40, 1, 17)]


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A folder with the model, its architecture, its ops and a checkpoint."""
    folder = tmp_path_factory.mktemp("own")
    spec = write_own_model(folder)
    shutil.copytree(FOLDER, folder / "ops", ignore=shutil.ignore_patterns("__pycache__"))
    model = load_model(str(spec), own_functions=load_ops([folder / "ops"]))
    write_random_checkpoint(model, folder / "checkpoint", seed=5)
    return folder


@pytest.fixture
def spec(home) -> ModelSpec:
    return load_model(str(home / "tiny.yaml"), own_functions=load_ops([home / "ops"]))


def open_llm(home: Path, *, ops: object = None, **options: object) -> LLM:
    usual = {"max_model_len": 64, "max_num_seqs": 4, "show_progress": False}
    arch, folder = str(home / "small.yaml"), home / "ops" if ops is None else ops
    return LLM(home / "checkpoint", arch=arch, ops=folder, **{**usual, **options})


def planned(spec: ModelSpec, **options: object):
    chosen = CompileOptions(spelling=Spelling(ops=("some/where/ops",)), **options)
    return plan_model(spec, load_device("cpu"), chosen)


# ---- spec, graph, passes ----------------------------------------------------------------------


def test_statements_call_them_only_with_their_folder(home):
    with pytest.raises(SpecError, match=r"small\.yaml:\d+: unknown op 'hard_swish'") as error:
        load_model(str(home / "tiny.yaml"))
    assert "--ops DIR" in str(error.value)
    assert not set(load_ops([FOLDER])) & set(OPS)


def test_nodes_have_types_and_places(spec):
    graph = build_graph(spec)
    (region, _) = graph.layer_kinds
    swish, mix = (
        next(node for node in region.nodes if node.op == op) for op in ("hard_swish", "gated_mix")
    )
    assert str(swish.output.type) == "float32[num_tokens, 40]"
    assert [str(value.type) for value in mix.outputs] == [
        "float32[num_tokens, 24]",
        "float32[num_tokens, 4]",
    ]
    assert list(mix.inputs) == ["x", "gate", "gain", "floor"]
    assert dict(mix.attributes) == {"sharpness": 1.5, "shift": -3, "inverted": False}
    assert Path(mix.location.path).name == "small.yaml"
    weights = {weight.name: weight for weight in region.weights}
    assert weights["mix_gain"].sources == {"model.layers.{layer}.mlp.mix_gain.weight": (24,)}


def test_a_float32_weight_stays_float32_beside_half_activations(home):
    text = {"torch_dtype": "bfloat16"}
    functions = load_ops([home / "ops"])
    spec = load_model(str(home / "tiny.yaml"), overrides=text, own_functions=functions)
    weights = {
        weight.name: weight.type.dtype for weight in build_graph(spec).layer_kinds[0].weights
    }
    assert (weights["mix_gain"], weights["mix_floor"]) == (DType.F32, DType.BF16)


@pytest.mark.parametrize("lowering", PIPELINES)
def test_passes_keep_the_answer(home, spec, lowering):
    first = build_graph(spec)
    last = run_pipeline(first, passes=PIPELINES[lowering])
    verify(last)
    with open_checkpoint(home / "checkpoint") as checkpoint:
        before, after = (
            prompt_logits(
                Interpreter(graph, checkpoint.read, max_model_len=64, max_num_seqs=4), PROMPTS
            )
            for graph in (first, last)
        )
    for expected, actual in zip(before, after, strict=True):
        assert np.ptp(expected) > 1.0
        np.testing.assert_allclose(actual, expected, atol=1e-5 * np.ptp(expected))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sharpness=1.5", "sharpness=-1.5", "attribute 'sharpness' is out of range"),
        ("shift=-3", "shift=0.5", "'shift' is no whole number"),
        ("shift=-3,", "", "'gated_mix' needs the keyword 'shift'"),
        ("gated_mix(m, g,", "gated_mix(m,", "'gated_mix' takes 2 positional argument"),
        ("m, s = gated_mix", "m = gated_mix", r"1 target\(s\) for 2 result"),
        ("mix_gate, out=4", "mix_gate, out=5", "gates do not divide the columns"),
        ("hard_swish(", "hard_swishy(", "did you mean 'hard_swish'"),
    ],
)
def test_calls_are_checked_as_those_of_built_in_ops(tmp_path, old, new, message):
    model = write_own_model(tmp_path)
    text = (tmp_path / "small.yaml").read_text(encoding="utf-8")
    (tmp_path / "small.yaml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SpecError, match=message) as error:
        build_graph(load_model(str(model), own_functions=load_ops([FOLDER])))
    assert "small.yaml:" in str(error.value)


# ---- plan, emission ---------------------------------------------------------------------------


def test_headers_are_part_of_the_engine(spec, home):
    compiled = planned(spec)
    for name in ("hard_swish.hpp", "gated_mix.hpp", "logistic.hpp"):
        assert compiled.files[f"own_ops/{name}"] == (home / "ops" / name).read_text("utf-8")
    assert "--ops ops" in compiled.files["engine.cpp"]
    assert "template struct own::HardSwish<Element, 40>;" in compiled.files["kernels.cpp"]
    assert "native::own::GatedMix<Element, 24, 4>::run(" in compiled.files["engine.cpp"]
    ops = json.loads(compiled.files["manifest.json"])["ops"]
    assert ops["hard_swish"]["why"] == "your kernel in hard_swish.hpp"
    assert compiled.files == planned(spec).files


def test_a_change_of_either_file_shows_in_the_engine(home, tmp_path):
    def files(**changed: str) -> dict[str, str]:
        shutil.copytree(home / "ops", tmp_path / "ops", dirs_exist_ok=True)
        for suffix, text in changed.items():
            file = tmp_path / "ops" / f"hard_swish.{suffix}"
            file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")
        functions = load_ops([tmp_path / "ops"])
        return dict(planned(load_model(str(home / "tiny.yaml"), own_functions=functions)).files)

    same = files()
    assert same == files()
    assert files(hpp="// changed\n") != same
    assert files(py="# changed\n")["manifest.json"] != same["manifest.json"]


def test_unused_headers_stay_out(home, tmp_path):
    text = (home / "ops" / "hard_swish.py").read_text(encoding="utf-8")
    shutil.copytree(home / "ops", tmp_path / "ops")
    (tmp_path / "ops" / "soft_swish.py").write_text(text.replace("hard_", "soft_"))
    (tmp_path / "ops" / "soft_swish.hpp").write_text("struct SoftSwish {};")
    functions = load_ops([tmp_path / "ops"])
    compiled = planned(load_model(str(home / "tiny.yaml"), own_functions=functions))
    assert not [name for name in compiled.files if "soft" in name]


def test_engines_without_own_ops_know_nothing_of_them():
    compiled = plan_model(load_model("qwen3-0.6b"), load_device("cpu"), CompileOptions())
    assert not [name for name, text in compiled.files.items() if "own_ops" in name + text]


def test_headers_of_an_earlier_build_do_not_stay(home, tmp_path):
    compiled = plan_model(load_model("qwen3-0.6b"), load_device("cpu"), CompileOptions())
    folder = tmp_path / compiled.plan.module_name
    shutil.copytree(home / "ops", folder / "own_ops")
    (folder / "own_ops.hpp").write_text("// of another engine")
    assert emit_model(compiled, tmp_path) == folder
    assert not [path for path in folder.iterdir() if path.name.startswith("own_ops")]


@pytest.mark.parametrize("device", ["nvidia", "mlu", "cpu"])
def test_the_portable_lowering_refuses_them_by_name(spec, device):
    options = CompileOptions(dtype=DType.F32, lowering="portable")
    with pytest.raises(LoweringError) as error:
        plan_model(spec, load_device(device), options)
    message = str(error.value)
    assert "small.yaml:" in message
    assert "cannot carry out gated_mix, hard_swish\n" in message
    assert "an op of your own, which InfiniCore has no operator for" in message
    assert "(--dev cpu)" in message
    assert "--engine interpreter" in message


def test_without_a_header_only_the_interpreter_runs_it(home, tmp_path):
    shutil.copytree(home / "ops", tmp_path / "ops")
    (tmp_path / "ops" / "hard_swish.hpp").unlink()
    with open_llm(home, engine="interpreter", ops=tmp_path / "ops") as llm:
        assert np.isfinite(llm.logits([[1, 2]])[0]).all()
    with pytest.raises(LoweringError, match="cannot carry out hard_swish") as error:
        open_llm(home, ops=tmp_path / "ops")
    assert f"there is no {tmp_path / 'ops' / 'hard_swish.hpp'}" in str(error.value)
    assert "template <class T, size_t kColumns> struct HardSwish" in str(error.value)
    assert "static void run(const Tensor& out, const Tensor& x);" in str(error.value)


# ---- engines ----------------------------------------------------------------------------------


@pytest.mark.compile
@pytest.mark.parametrize(
    ("dtype", "values", "bound"),
    [
        ("bfloat16", "auto", 8e-2),
        ("bfloat16", "bfloat16", 8e-2),
        ("float16", "float16", 1e-2),
    ],
)
def test_compiled_in_half_precision(home, dtype, values, bound):
    """The checkpoint is rounded to the dtype, so the distance is that of the arithmetic and it."""
    options = {"dtype": dtype, "activation_dtype": values}
    with open_llm(home, engine="interpreter") as exact, open_llm(home, **options) as half:
        for expected, actual in zip(exact.logits(PROMPTS), half.logits(PROMPTS), strict=True):
            off = np.sqrt(np.mean((actual - expected) ** 2)) / expected.std()
            assert 0 < off < bound


@pytest.mark.compile
def test_compiled_as_interpreted(home):
    with open_llm(home, engine="interpreter") as exact, open_llm(home) as compiled:
        rows = compiled.logits(PROMPTS)
        for prompt, expected, actual in zip(PROMPTS, exact.logits(PROMPTS), rows, strict=True):
            assert np.ptp(expected) > 1.0
            assert_logits_match(actual, expected, most_bounds=2.0)
            np.testing.assert_array_equal(actual, compiled.logits([prompt])[0])


def test_two_models_with_other_ops_live_in_one_process(home, tmp_path):
    """Both call their op by one name; each means its own."""
    shutil.copytree(home / "ops", tmp_path / "ops")
    file = tmp_path / "ops" / "hard_swish.py"
    text = file.read_text(encoding="utf-8").replace("* np.clip(x + 3, 0, 6) / 6", "* 2")
    file.write_text(text, encoding="utf-8")
    plain = {"engine": "interpreter"}
    with open_llm(home, **plain) as first, open_llm(home, ops=[tmp_path / "ops"], **plain) as other:
        before = first.logits([[1, 2, 3]])[0]
        assert not np.allclose(other.logits([[1, 2, 3]])[0], before)
        np.testing.assert_array_equal(first.logits([[1, 2, 3]])[0], before)


def test_ops_is_a_folder_or_a_list_of_them(home):
    for wrong in (3, [3], {"a": 1}):
        with pytest.raises(CodegenError, match="ops is a folder or a list of folders"):
            open_llm(home, ops=wrong)


# ---- the command line -------------------------------------------------------------------------


def test_commands_take_the_folder(home, tmp_path, capsys):
    def printed(*arguments: object) -> str:
        assert main([*map(str, arguments), "--ops", str(home / "ops")]) == 0
        return capsys.readouterr().out

    spec = home / "tiny.yaml"
    assert "= hard_swish(x=%gate)" in printed("graph", "--spec", spec)
    assert printed("graph", "--spec", spec, "--diff", spec) == ""
    with open_checkpoint(home / "checkpoint") as checkpoint:
        stored = sum(checkpoint.read(name).size for name in checkpoint.tensors)
    assert f"parameters        {stored:,}\n" in printed("specs", "show", spec)
    assert printed("random", "--spec", spec, "-o", tmp_path / "random")
    folder = Path(printed("build", "--spec", spec, "--emit-only", "--out", tmp_path).strip())
    assert (folder / "own_ops" / "hard_swish.hpp").is_file()
    devices = printed("devices", "--dev", "cpu").splitlines()
    assert any("own::HardSwish (your kernel in hard_swish.hpp)" in line for line in devices)
    assert any("unsupported: an op of your own" in line for line in devices)
    of_model = printed("devices", "--spec", spec, "--dev", "cpu").splitlines()
    assert [line.split()[0] for line in of_model if "own::" in line] == ["gated_mix", "hard_swish"]
    tokens = printed(
        *("generate", "--model", home / "checkpoint", "--arch", home / "small.yaml"),
        *("--token-ids", "1,2", "--max-tokens", 3, "--engine", "interpreter", "--temperature", 0),
    )
    assert len(tokens.split(",")) == 3


def test_help_warns_that_the_folder_is_run(capsys):
    with pytest.raises(SystemExit):
        main(["build", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--ops DIR folder with ops of your own" in said
    assert "runs the Python in it and compiles the C++ in it" in said
