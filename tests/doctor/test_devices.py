"""INFINI_ROOT and the library in it, which is asked how many devices it sees."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from qwen3_codegen.build.toolchain import find_compiler
from qwen3_codegen.doctor import Status
from qwen3_codegen.doctor.device_findings import device_findings
from qwen3_codegen.infinicore.headers import write_headers
from qwen3_codegen.spec.device import load_device

_LIBRARY = """\
extern "C" int infinirtInit() { return 0; }
extern "C" int infinirtGetDeviceCount(int device, int *count) { BODY }
"""

_NO_COMPILERS = {"NEUWARE_HOME": "/nowhere", "ASCEND_HOME": "/nowhere", "CUDA_HOME": "/nowhere"}
"""Whatever this machine has installed."""


@pytest.fixture(scope="module")
def make_root(tmp_path_factory):
    """Makes an INFINI_ROOT whose infinirt counts devices as a C++ body says."""

    def make(body: str, release: str = "2026-08") -> Path:
        root = tmp_path_factory.mktemp("infini")
        write_headers(release, root / "include")
        (root / "lib").mkdir()
        source = root / "infinirt.cpp"
        source.write_text(_LIBRARY.replace("BODY", body), encoding="utf-8")
        library = root / "lib" / "libinfinirt.so"
        subprocess.run(
            [find_compiler(), "-shared", "-fPIC", str(source), "-o", str(library)], check=True
        )
        shutil.copy(library, root / "lib" / "libinfiniop.so")
        return root

    return make


def found(dev: str, root: Path | str | None, **variables: str) -> dict[str, object]:
    environment = {"PATH": "", **_NO_COMPILERS, **variables}
    if root is not None:
        environment["INFINI_ROOT"] = str(root)
    return {f.subject: f for f in device_findings(load_device(dev), environment)}


def missing(findings: dict[str, object]) -> list[str]:
    assert all(f.mend for f in findings.values() if f.status is Status.MISSING)
    return [name for name, f in findings.items() if f.status is Status.MISSING]


def test_the_cpu_needs_nothing():
    findings = found("cpu", None)
    assert missing(findings) == []
    assert "embedded" in findings["INFINI_ROOT"].found


def test_a_wrong_root_is_no_matter_for_the_cpu(tmp_path):
    findings = found("cpu", tmp_path)
    assert findings["INFINI_ROOT"].status is Status.NOTE
    assert str(tmp_path) in findings["INFINI_ROOT"].found


def test_a_device_without_infinicore(tmp_path):
    assert missing(found("mlu", None)) == ["INFINI_ROOT", "Neuware"]
    findings = found("mlu", tmp_path)
    assert missing(findings) == ["INFINI_ROOT", "Neuware"]
    assert f"--infinicore {tmp_path}" in findings["INFINI_ROOT"].mend


@pytest.mark.compile
def test_a_device_that_is_there(make_root):
    root = make_root("*count = device == 2 ? 8 : 0; return 0;")
    findings = found("mlu", root)
    assert "API release 2026-08" in findings["INFINI_ROOT"].found
    assert findings["cambricon in InfiniCore"].found == "8 found"
    assert findings["Neuware"].status is Status.NOTE
    assert missing(findings) == []
    assert missing(found("npu", root)) == ["ascend in InfiniCore", "CANN toolkit"]


@pytest.mark.compile
def test_a_release_that_lacks_the_device(make_root):
    findings = found("dcu", make_root("*count = 1; return 0;", "0.1.0"))
    assert "0.1.0 does not know it" in findings["hygon in InfiniCore"].found


@pytest.mark.compile
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("*count = 0; return 5;", "status 5"),
        ("__builtin_trap();", "cannot be asked"),
        ("throw 1;", "cannot be asked"),
    ],
)
def test_a_library_that_sees_none(body, says, make_root):
    findings = found("cuda", make_root(body))
    assert says in findings["nvidia in InfiniCore"].found
    assert "nvidia in InfiniCore" in missing(findings)


def test_a_device_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("device: mine\nextends: cambricon\n", encoding="utf-8")
    findings = found(str(file), None)
    assert "Neuware" in missing(findings)
    assert findings["device"].found == "mine: Cambricon MLU"
    file.write_text("device: mine\ninfinicore: cambricon\n", encoding="utf-8")
    assert found(str(file), None)["device"].found == "mine"
