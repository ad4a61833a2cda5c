"""The recorded API: complete, checked, and equal to InfiniCore's own headers."""

from __future__ import annotations

import re

import pytest

from qwen3_codegen.errors import InfiniCoreError
from qwen3_codegen.infinicore import reading
from qwen3_codegen.infinicore.api import DEFAULT_RELEASE, RELEASES, ArgumentKind, load_api
from qwen3_codegen.infinicore.headers import render_headers, write_headers
from qwen3_codegen.paths import modelspecs_dir
from tests.infinicore.builds import SOURCE, compiler, run

EVERYWHERE = {"gemm", "rms_norm", "rope", "swiglu", "causal_softmax", "random_sample", "rearrange"}


@pytest.mark.parametrize("release", RELEASES)
def test_operators_of_a_release(release):
    api = load_api(release)
    assert EVERYWHERE | {"add", "mul", "sub", "relu"} <= set(api.operators)
    assert api.supports("gemm", "cpu")
    assert not api.supports("paged_attention", "cpu")
    assert api.supports("paged_attention", "nvidia") == (release == "2026-08")
    rope = [argument.name for argument in api.operators["rope"].create_args]
    assert rope.index("sin_table") + 1 == rope.index("cos_table")
    assert ("algo" in rope) == (release != "2025-08")


def test_the_newest_release_has_the_common_set_on_every_device():
    api = load_api("2026-08")
    common = {n for n, op in api.operators.items() if set(op.devices) == set(api.devices)}
    assert common == EVERYWHERE | {"add", "embedding"}


def test_device_numbers():
    assert load_api("0.1.0").devices["sugon"] == load_api("2026-08").devices["hygon"] == 8
    assert load_api("2026-08").devices["ali"] == 10
    assert load_api("2026-08").device_constant("qy") == "INFINI_DEVICE_QY"
    assert DEFAULT_RELEASE in RELEASES


@pytest.mark.parametrize(
    ("release", "operator", "device", "dtypes", "accepted"),
    [
        ("0.1.0", "gemm", "cpu", {"c": "bf16", "a": "bf16", "b": "bf16"}, True),
        ("0.1.0", "gemm", "cpu", {"c": "f32", "a": "bf16", "b": "bf16"}, False),
        ("0.1.0", "gemm", "ascend", {"c": "bf16"}, False),
        ("2026-08", "gemm", "ascend", {"c": "bf16"}, True),
        ("2025-08", "rms_norm", "cpu", {"x": "bf16", "w": "f16"}, False),
        ("0.1.0", "rms_norm", "cpu", {"x": "bf16", "w": "f16"}, True),
        ("0.1.0", "rms_norm", "cpu", {"x": "f32", "w": "bf16"}, False),
        ("0.1.0", "rope", "kunlun", {"pos_ids": "i64"}, False),
        ("2026-08", "rope", "kunlun", {"pos_ids": "i64"}, True),
        ("0.1.0", "add", "moore", {"c": "f32"}, False),
    ],
)
def test_accepted_types(release, operator, device, dtypes, accepted):
    assert load_api(release).operators[operator].accepts(device, dtypes) == accepted


def test_arguments_can_be_printed():
    gemm = load_api("0.1.0").operators["gemm"]
    assert gemm.create_function == "infiniopCreateGemmDescriptor"
    assert [(a.name, a.kind, a.c_type) for a in gemm.run_args] == [
        ("desc", ArgumentKind.DESCRIPTOR, "infiniopGemmDescriptor_t"),
        ("workspace", ArgumentKind.WORKSPACE, "void *"),
        ("workspace_size", ArgumentKind.WORKSPACE_SIZE, "size_t"),
        ("c", ArgumentKind.TENSOR_INOUT, "void *"),
        ("a", ArgumentKind.TENSOR_IN, "const void *"),
        ("b", ArgumentKind.TENSOR_IN, "const void *"),
        ("alpha", ArgumentKind.FLOAT, "float"),
        ("beta", ArgumentKind.FLOAT, "float"),
        ("stream", ArgumentKind.STREAM, "void *"),
    ]
    rearrange = load_api("0.1.0").operators["rearrange"]
    assert not rearrange.has_workspace
    assert [a.name for a in rearrange.run_args] == ["desc", "dst", "src", "stream"]


def test_wrong_names_are_errors():
    with pytest.raises(InfiniCoreError, match=r"unknown InfiniCore API release '0\.1'"):
        load_api("0.1")
    api = load_api("0.1.0")
    with pytest.raises(InfiniCoreError, match="has no device 'hygon'"):
        api.device_constant("hygon")
    with pytest.raises(InfiniCoreError, match="add does not run on 'moore'"):
        api.operators["add"].dtypes("moore")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("workspace: true", "workspace: true\nworkspaces: 1", "unknown keys: workspaces"),
        ("symbol: Gemm\n", "", "'symbol' is missing"),
        ("float beta]", "flot beta]", "not an argument"),
        ("names: [ascend, kunlun]", "names: [ascend, kunlin]", "device 'kunlin' does not belong"),
        ("{T: [f16, f32]}", "{T: [f16, fp32]}", "unknown dtype 'fp32'"),
        ("devices:\n", "devices: [\n", "cannot read InfiniCore's API"),
    ],
)
def test_damaged_files_are_errors(tmp_path, monkeypatch, old, new, message):
    folder = tmp_path / "infinicore" / "operators"
    folder.mkdir(parents=True)
    shipped = modelspecs_dir() / "infinicore"
    (folder.parent / "abi.yaml").write_text((shipped / "abi.yaml").read_text())
    text = (shipped / "operators" / "gemm.yaml").read_text()
    assert old in text
    (folder / "gemm.yaml").write_text(text.replace(old, new, 1))
    monkeypatch.setattr(reading, "modelspecs_dir", lambda: tmp_path)
    reading.read_api.cache_clear()
    try:
        with pytest.raises(InfiniCoreError, match=message) as caught:
            load_api("2025-08")
        assert "gemm.yaml" in str(caught.value)
    finally:
        reading.read_api.cache_clear()


# --- headers --------------------------------------------------------------------------------------


def type_of(parameter: str) -> str:
    """Returns the type of a parameter declaration; qualifiers may stand before or after it."""
    words = re.findall(r"\w+|\*", parameter)
    return " ".join(sorted(words[:-1]))


def declarations(headers: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Returns the functions declared in header texts, from name to parameter types."""
    found = {}
    for text in headers.values():
        plain = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
        for name, parameters in re.findall(r"infiniStatus_t\s+(\w+)\(([^)]*)\)\s*;", plain):
            listed = [] if parameters.strip() in ("", "void") else parameters.split(",")
            found[name] = tuple(type_of(parameter) for parameter in listed)
    return found


def enumerators(headers: dict[str, str]) -> set[tuple[str, str]]:
    text = re.sub(r"//[^\n]*", "", "\n".join(headers.values()))
    return set(re.findall(r"\b(INFINI\w+)\s*=\s*(\d+)", text))


@pytest.mark.network
def test_headers_declare_what_the_real_ones_do(registry_root):
    include = registry_root.include_dir
    real = {str(path): path.read_text() for path in include.rglob("*.h")}
    ours = {name: text for name, text in render_headers("0.1.0").items() if name.endswith(".h")}
    real_functions, our_functions = declarations(real), declarations(ours)
    # The real header forgets one function that the library exports.
    assert set(our_functions) - set(real_functions) == {"infiniopGetReluWorkspaceSize"}
    for name, types in our_functions.items():
        assert types == real_functions.get(name, types), name
    missing = set(real_functions) - set(our_functions)
    assert all(re.search("Attention|Clip|Conv|Dequantize|Softplus|Topkrouter", n) for n in missing)
    assert enumerators(ours) - enumerators(real) == {("INFINI_DEVICE_TYPE_COUNT", "9")}
    assert enumerators(real) <= enumerators(ours)


@pytest.mark.parametrize("release", RELEASES)
def test_headers_are_deterministic(release):
    first = render_headers(release)
    reading.read_api.cache_clear()
    assert render_headers(release) == first
    text = "\n".join(first.values())
    assert ("infiniopRoPEAlgo_t algo" in text) == (release != "2025-08")
    assert "{{" not in text
    assert "{%" not in text


def test_only_changed_headers_are_written(tmp_path):
    paths = write_headers("2026-08", tmp_path)
    assert tmp_path / "infiniop/ops/embedding.h" in paths
    before = {path: path.stat().st_mtime_ns for path in paths}
    (tmp_path / "infinirt.h").write_text("damaged")
    assert write_headers("2026-08", tmp_path) == paths
    changed = [path.name for path in paths if path.stat().st_mtime_ns != before[path]]
    assert changed == ["infinirt.h"]
    write_headers("0.1.0", tmp_path)
    assert not (tmp_path / "infiniop/ops/embedding.h").exists()
    assert "release 0.1.0" in (tmp_path / "infiniop.h").read_text()
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.compile
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("language", ["c", "c++"])
def test_headers_compile(tmp_path, release, language):
    write_headers(release, tmp_path)
    source = tmp_path / "all.src"
    source.write_text("#include <infiniop.h>\n#include <infiniccl.h>\n")
    standard = {"c": "-std=c11", "c++": "-std=c++17"}[language]
    command = [compiler(), "-x", language, standard, "-Wall", "-Wextra", "-Werror", "-pedantic"]
    run([*command, "-fsyntax-only", f"-I{tmp_path}", str(source)])


def test_the_table_needs_no_more_groups_than_it_has_room_for():
    header = (SOURCE / "src" / "api_rules.hpp").read_text()
    room = int(re.search(r"kMaxDtypeGroups = (\d+)", header).group(1))
    for release in RELEASES:
        for operator in load_api(release).operators.values():
            for support in operator.devices.values():
                assert len({rule.group for rule in support.tensors}) <= room
                assert max(max(rule.ranks) for rule in support.tensors) < 16
