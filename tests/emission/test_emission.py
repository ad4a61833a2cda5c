"""Files of an engine: reproducible, readable, and nothing in them but what the plan says."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
from jinja2 import meta

from qwen3_codegen.compile import CompileOptions, plan_model
from qwen3_codegen.dtypes import DType
from qwen3_codegen.emission import emit as emit_module
from qwen3_codegen.emission import render, views
from qwen3_codegen.emission.cpp import WIDTH
from qwen3_codegen.emission.emit import emit_engine
from qwen3_codegen.emission.operators_view import operators_view
from qwen3_codegen.emission.render import Renderer, environment, write_files, write_if_changed
from qwen3_codegen.errors import CodegenError, LoweringError
from qwen3_codegen.infinicore.api import Argument, ArgumentKind, load_api
from qwen3_codegen.paths import templates_dir
from qwen3_codegen.plan.planner import plan_engine
from qwen3_codegen.spec.catalog import load_model, model_names
from qwen3_codegen.spec.device import load_device
from qwen3_runtime.checkpoint.transform import from_json
from qwen3_runtime.engine.manifest import MANIFEST_FORMAT
from tests.emission.golden import emitted
from tests.ir.tiny import ATTENTION, MLP, tiny_spec
from tests.plan.planning import LOWERED, optimised, request, tiny_plan

API = load_api("0.1.0")

VIEWS = {
    "engine.hpp.jinja": views.EngineView,
    "engine.cpp.jinja": views.EngineView,
    "native/engine.hpp.jinja": views.EngineView,
    "native/engine.cpp.jinja": views.EngineView,
    "native/kernels.cpp.jinja": views.EngineView,
    "native/own_ops.hpp.jinja": views.EngineView,
    "region.cpp.jinja": views.RegionView,
    "infinicore_ops.hpp.jinja": views.OperatorsView,
    "bindings.cpp.jinja": views.ProjectView,
    "c_api.cpp.jinja": views.ProjectView,
    "CMakeLists.txt.jinja": views.ProjectView,
    "pyproject.toml.jinja": views.ProjectView,
    "__init__.py.jinja": views.ProjectView,
    "__init__.pyi.jinja": views.ProjectView,
}


def emit(plan, command="qwen3-codegen build"):
    return emit_engine(plan, API, command)


# ---- templates ------------------------------------------------------------------------------


def variables(template: str) -> set[str]:
    source = (templates_dir() / template).read_text(encoding="utf-8")
    return meta.find_undeclared_variables(environment(templates_dir()).parse(source))


def fields(view: type) -> set[str]:
    return {field.name for field in dataclasses.fields(view)}


def test_every_template_has_a_view():
    found = {
        path.relative_to(templates_dir()).as_posix()
        for folder in (templates_dir(), templates_dir() / "native")
        for path in folder.glob("*.jinja")
    }
    assert found == set(VIEWS)


@pytest.mark.parametrize("template", VIEWS)
def test_a_template_asks_only_for_what_its_view_has(template):
    assert variables(template) <= fields(VIEWS[template])


@pytest.mark.parametrize("view", sorted(set(VIEWS.values()), key=lambda view: view.__name__))
def test_every_field_of_a_view_is_printed(view):
    asked = set().union(*(variables(name) for name, known in VIEWS.items() if known is view))
    assert asked == fields(view)


@pytest.mark.parametrize("template", VIEWS)
def test_the_first_line_names_view_and_file(template):
    first = (templates_dir() / template).read_text(encoding="utf-8").split("\n")[0]
    assert first.startswith(f"{{# {VIEWS[template].__name__} -> ")


def test_a_field_that_is_missing_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "x.jinja").write_text("{# V -> x #}\n{{ present }} {{ absent }}\n")
    monkeypatch.setattr(render, "templates_dir", lambda: tmp_path)

    @dataclasses.dataclass(frozen=True)
    class V:
        present: str

    with pytest.raises(Exception, match="'absent' is undefined"):
        Renderer().render("x.jinja", V("here"))


# ---- texts ----------------------------------------------------------------------------------


def test_two_runs_agree_to_the_byte():
    code = (
        "import json, sys; from tests.emission.golden import emitted;"
        "sys.stdout.write(json.dumps(dict(emitted('gemma3'))))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert json.loads(runs[0]) == dict(emitted("gemma3"))


@pytest.mark.parametrize("case_id", LOWERED)
@pytest.mark.parametrize("lowering", ["portable", "native"])
def test_sources_are_plain_and_narrow(case_id, lowering):
    for name, text in emitted(case_id, lowering=lowering).items():
        assert text.isascii()
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert "\n\n\n" not in text, name
        if name.endswith((".cpp", ".hpp")):
            wide = [line for line in text.split("\n") if len(line) > WIDTH or line != line.rstrip()]
            assert wide == [], name


@pytest.mark.parametrize("name", model_names())
def test_shipped_models_are_plain_and_narrow(name):
    try:
        files = plan_model(load_model(name), load_device("mlu"), CompileOptions()).files
    except LoweringError:
        pytest.skip("refused by the portable lowering")
    for file, text in files.items():
        assert text.isascii()
        if file.endswith((".cpp", ".hpp")):
            assert max(map(len, text.split("\n"))) <= WIDTH, file


def test_sources_hold_no_machine_s_paths_and_no_time():
    text = "".join(emitted("qwen3-window-3").values())
    assert not re.search(r"/(home|tmp|root|usr|work)/", text)
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", text)


def test_python_files_parse():
    files = emitted("llama")
    assert ast.get_docstring(ast.parse(files["__init__.py"])).startswith("Engine of llama (llama)")
    ast.parse(files["__init__.pyi"])
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads(files["pyproject.toml"])
    assert project["project"]["name"] == "llama-cpu"


def test_a_wheel_asks_for_the_runtime_of_the_version_that_wrote_it(monkeypatch):
    wanted = f'\ndependencies = ["qwen3-codegen=={version("qwen3-codegen")}"]\n'
    assert wanted in emit(tiny_plan())["pyproject.toml"]
    monkeypatch.setattr(emit_module, "distribution_version", lambda: None)
    assert '\ndependencies = ["qwen3-codegen"]\n' in emit(tiny_plan())["pyproject.toml"]


@pytest.mark.parametrize(
    "name", ["caf\u00e9 \u6a21\u578b", 'a"b\\c??/', "x*/ int y; /*", "new\nline"]
)
def test_a_model_s_name_cannot_leave_its_comment(name):
    plan = dataclasses.replace(tiny_plan(), model_name=name)
    files = emit(plan, command=f"qwen3-codegen build --spec {name}")
    plain = emit(dataclasses.replace(plan, model_name="plain"))
    for file in files:
        if not file.endswith((".cpp", ".hpp", ".txt")):
            continue
        code, expected = (
            [line for line in text.split("\n") if not line.startswith(("//", "#"))]
            for text in (files[file], plain[file])
        )
        assert code == expected, file
    ast.parse(files["__init__.py"])
    assert json.loads(files["manifest.json"])["model"] == name


def test_a_module_name_that_is_no_identifier_is_refused():
    with pytest.raises(CodegenError, match="cannot become a C"):
        emit(dataclasses.replace(tiny_plan(), module_name="x; rm"))


def test_values_named_like_c_plus_plus_are_renamed():
    lines = [re.sub(r"\bq\b", "new", re.sub(r"\ba\b", "w", line)) for line in (*ATTENTION, *MLP)]
    lines = [line.replace("new, k = rope(new, k", "new, k = rope(new, k") for line in lines]
    source = emit(tiny_plan(tuple(lines)))["engine.cpp"]
    assert "const Tensor w_value = " in source
    assert "const Tensor new_value = " in source
    assert "const Tensor w = " not in source


def test_weights_named_like_keywords_are_renamed_but_asked_for_by_name():
    lines = [line.replace("attn.o_proj", "attn.default") for line in (*ATTENTION, *MLP)]
    files = emit(tiny_plan(tuple(lines)))
    assert "Tensor default_member;" in files["engine.hpp"]
    assert 'w.default_member = upload(source, layer, "default", ' in files["engine.cpp"]
    assert "w.default_member.transposed()" in files["engine.cpp"]


def test_layer_kinds_of_names_that_would_collide_are_numbered():
    plan = tiny_plan(
        attributes=({"window": 2}, {"window": 3}, {"window": 4}),
        layer_types=["wide-area", "wide_area", "wideArea"],
    )
    header = emit(plan)["engine.hpp"]
    assert re.findall(r"^struct (\w+Weights)", header, re.M)[1:] == [
        "WideAreaLayerWeights",
        "WideAreaLayer2Weights",
        "WideareaLayer3Weights",
    ]


def test_one_kind_of_layer_needs_no_switch():
    assert "switch" not in emit(tiny_plan())["engine.cpp"]
    two = emit(tiny_plan(attributes=({"window": 2}, {"window": None})))["engine.cpp"]
    assert "constexpr int kLayerKinds[kNumLayers] = {0, 1};" in two


def test_an_engine_without_attention_or_rope():
    files = emit(tiny_plan(MLP))
    for name in ("engine.cpp", "engine.hpp"):
        assert not re.search(r"Attention|attention_0|[Rr]ope", files[name])


def test_the_head_says_how_to_make_it_again():
    spec, device = load_model("qwen3-1.7b"), load_device("mlu")
    plain = plan_model(spec, device, CompileOptions()).files["engine.cpp"]
    assert "\n//   qwen3-codegen build --spec qwen3-1.7b --dev mlu\n" in plain
    options = CompileOptions(dtype=DType.F16, release="2026-08")
    chosen = plan_model(spec, device, options).files["engine.cpp"]
    command = "--spec qwen3-1.7b --dev mlu --dtype float16 --infinicore-api 2026-08"
    assert f"\n//   qwen3-codegen build {command}\n" in chosen


def test_steps_say_which_line_they_carry_out():
    source = emitted("qwen3-window-3")["engine.cpp"]
    assert "of modelspecs/architectures/qwen3.yaml." in source
    assert re.search(
        r"// qwen3\.yaml:\d+: q_rms_norm = rms_norm\(q, q_norm\) \{eps=0\.03\}", source
    )
    assert re.search(r"// qwen3\.yaml:\d+: h_add = linear\(\w+, o_proj, residual=h\)", source)


def test_longrope_chooses_by_max_model_len():
    source = emitted("jiuge-longrope")["engine.cpp"]
    assert "constexpr size_t kRopeLongThreshold = 400;" in source
    assert "options.max_model_len > kRopeLongThreshold ? kRopeLongInvFreq : kRopeInvFreq" in source


def test_emulated_devices_are_announced():
    header = emitted("llama", "mlu")["engine.hpp"]
    assert '{INFINI_DEVICE_CAMBRICON, "cambricon", /*emulated=*/true}' in header
    assert '{INFINI_DEVICE_CPU, "cpu", /*emulated=*/false}' in emitted("llama")["engine.hpp"]
    assert json.loads(emitted("llama", "mlu")["manifest.json"])["device"]["emulated"] is True


def test_an_argument_engines_cannot_pass():
    gemm = API.operators["gemm"]
    strange = Argument("half", ArgumentKind.DOUBLE, "double")
    for field in ("create_args", "run_args"):
        odd = dataclasses.replace(gemm, **{field: (*getattr(gemm, field), strange)})
        api = dataclasses.replace(API, operators={**API.operators, "gemm": odd})
        with pytest.raises(LoweringError) as caught:
            operators_view(tiny_plan(), api)
        assert str(caught.value) == (
            "InfiniCore's gemm has an argument engines cannot pass\n"
            "  got:      double half (double)"
        )


def test_a_data_pointer_without_a_tensor():
    gemm = API.operators["gemm"]
    renamed = tuple(
        dataclasses.replace(a, name="out") if a.name == "c" else a for a in gemm.run_args
    )
    odd = dataclasses.replace(gemm, run_args=renamed)
    api = dataclasses.replace(API, operators={**API.operators, "gemm": odd})
    with pytest.raises(LoweringError, match="has an argument engines cannot pass"):
        operators_view(tiny_plan(), api)


# ---- manifest -------------------------------------------------------------------------------


def test_the_manifest_says_what_the_engine_is():
    plan = tiny_plan(
        attributes=({"window": None}, {"window": 4}),
        epilogue=("logits = linear(h, weight=embed, out=vocab_size)",),
    )
    manifest = json.loads(emit(plan)["manifest.json"])
    assert manifest["format"] == MANIFEST_FORMAT
    assert (manifest["module"], manifest["model"], manifest["architecture"]) == (
        "tiny_cpu",
        "tiny",
        "tiny",
    )
    assert manifest["infinicore"] == {"release": "0.1.0", "kind": "embedded"}
    assert [group["window"] for group in manifest["cache_groups"]] == [None, 4]
    assert manifest["memory"]["weight_bytes"] == plan.memory.weight_bytes
    assert manifest["ops"]["linear"] == {"infinicore": ["gemm"], "why": "the device has it"}
    by_name = {weight["name"]: weight for weight in manifest["weights"]}
    assert by_name["embed"]["layers"] is None
    assert by_name["embed"]["shape"] == [37, 12]
    assert sorted(by_name["qkv_proj"]["sources"]) == [
        f"layers.{{layer}}.attn.{name}_proj.weight" for name in "kqv"
    ]
    kinds = [w["layers"] for w in manifest["weights"] if w["name"] == "qkv_proj"]
    assert kinds == [[0], [1]]


def test_weight_expressions_read_back():
    plan = plan_engine(optimised(tiny_spec()), request(release="2025-08"))
    manifest = json.loads(emit_engine(plan, load_api("2025-08"), "")["manifest.json"])
    expressions = {w["name"]: from_json(w["expression"]) for w in manifest["weights"]}
    for weight in (*plan.prologue.weights, *plan.layer_kinds[0].weights):
        assert expressions[weight.name] == weight.expression


def test_hashes_are_those_of_spec_device_and_plan():
    def hashes(name: str, device: str) -> dict[str, str]:
        text = plan_model(load_model(name), load_device(device), CompileOptions()).files
        return json.loads(text["manifest.json"])["sha256"]

    one, mlu, other = (
        hashes("qwen3-1.7b", "cpu"),
        hashes("qwen3-1.7b", "mlu"),
        hashes("qwen3-0.6b", "cpu"),
    )
    assert list(one) == ["spec", "device", "plan"]
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in one.values())
    assert one["spec"] == mlu["spec"] != other["spec"]
    assert one["device"] == other["device"] != mlu["device"]
    assert len({one["plan"], mlu["plan"], other["plan"]}) == 3


# ---- writing --------------------------------------------------------------------------------


def test_files_are_written_only_when_they_change(tmp_path):
    assert write_files(tmp_path / "a" / "b", {"x.cpp": "1\n", "y.cpp": "2\n"}) == ["x.cpp", "y.cpp"]
    folder = tmp_path / "a" / "b"
    before = (folder / "x.cpp").stat().st_mtime_ns
    time.sleep(0.01)
    assert write_files(folder, {"x.cpp": "1\n", "y.cpp": "3\n"}) == ["y.cpp"]
    assert (folder / "x.cpp").stat().st_mtime_ns == before
    assert sorted(path.name for path in folder.iterdir()) == ["x.cpp", "y.cpp"]
    assert (folder / "y.cpp").stat().st_mode & 0o777 == 0o644


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.cpp"
    write_if_changed(path, "old\n")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(render.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_if_changed(path, "new\n")
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_flagship_is_emitted_quickly(capsys):
    spec, device = load_model("qwen3-1.7b"), load_device("cpu")
    plan_model(spec, device, CompileOptions())
    start = time.perf_counter()
    files = plan_model(spec, device, CompileOptions()).files
    seconds = time.perf_counter() - start
    with capsys.disabled():
        print(f" [spec to text in {seconds:.2f} s]", end="")
    assert {"engine.cpp", "kernels.cpp", "manifest.json"} <= set(files)
    assert seconds < 10, "an order of magnitude above what it takes on two busy cores"
