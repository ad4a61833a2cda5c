"""Each thing the doctor looks at, present and absent."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qwen3_codegen.doctor import Status, build_tools, caches, machine, python_environment
from qwen3_codegen.doctor.device_toolchains import TOOLCHAINS, find_vendor_compiler
from qwen3_codegen.spec.device import device_names, load_device


def program(path: Path, text: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_compiler_of_this_machine():
    found = list(build_tools.build_tool_findings())
    assert [f.subject for f in found] == ["compiler", "CMake", "ninja"]
    assert {f.status for f in found} == {Status.OK}


def test_no_compiler():
    found, *rest = build_tools.build_tool_findings({"CXX": "no-such-compiler"})
    assert (found.status, found.subject) == (Status.MISSING, "compiler")
    assert "no-such-compiler" in found.found
    assert "apt install g++" in found.mend
    assert [f.subject for f in rest] == ["CMake", "ninja"]


def test_a_compiler_that_refuses_the_language(tmp_path):
    old = program(tmp_path / "c++", 'test "$1" = --version && echo "c++ 4.8" && exit 0\n'
                  'echo "unrecognized option -std=c++17" >&2; exit 1')  # fmt: skip
    found = build_tools.compiler_finding(old)
    assert found.status is Status.MISSING
    assert "c++ 4.8" in found.found
    assert "unrecognized option" in found.found


def test_a_compiler_that_is_no_program(tmp_path):
    (tmp_path / "c++").write_text("", encoding="utf-8")
    assert build_tools.compiler_finding(tmp_path / "c++").status is Status.MISSING


def test_headers_of_python(tmp_path):
    absent = python_environment.header_finding(tmp_path)
    assert absent.status is Status.MISSING
    assert "python3-dev" in absent.mend
    (tmp_path / "Python.h").touch()
    assert python_environment.header_finding(tmp_path).status is Status.OK


def test_packages():
    check = python_environment.package_findings
    (fine,) = check(["numpy>=1", "pytest>=1", 'no-such-package>=1; extra == "test"'])
    assert (fine.status, fine.found) == (Status.OK, "all 2 that qwen3-codegen asks for")
    absent, old = check(["no-such-package>=1", "numpy>=999,<1000", "pytest>=1"])
    assert (absent.status, absent.mend) == (Status.MISSING, "pip install 'no-such-package>=1'")
    assert old.status is Status.MISSING
    assert "wanted <1000,>=999" in old.found


def test_memory(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: 8000000 kB\n")
    found = machine.memory_finding(meminfo, tmp_path / "none", tmp_path)
    assert (found.status, found.found) == (Status.OK, "16.38 GB, 8.19 GB of it free")
    meminfo.write_text("MemTotal: 16000000 kB\nMemAvailable: 800000 kB\n")
    assert machine.memory_finding(meminfo, tmp_path / "none", tmp_path).status is Status.NOTE
    assert machine.memory_finding(tmp_path / "none", tmp_path / "none", tmp_path).found


@pytest.mark.parametrize(
    ("limits", "room"),
    [
        ({}, None),
        ({"a/b": ("max", 5)}, None),
        ({"a/b": ("100", 30)}, 70),
        ({"a/b": ("100", 30), "a": ("60", 40)}, 20),
        ({"a/b": ("max", 30), "a": ("10", 40)}, 0),
    ],
    ids=["none", "max", "own", "of an ancestor", "exceeded"],
)
def test_control_groups(limits, room, tmp_path):
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("1:cpu:/else\n0::/a/b\n", encoding="utf-8")
    mount = tmp_path / "mount"
    (mount / "a/b").mkdir(parents=True)
    for group, (limit, used) in limits.items():
        (mount / group / "memory.max").write_text(limit)
        (mount / group / "memory.current").write_text(str(used))
    assert machine.control_group_room(cgroup, mount) == room


def test_a_control_group_caps_free_memory(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "memory.max").write_text("1000000000")
    (tmp_path / "memory.current").write_text("0")
    found = machine.memory_finding(tmp_path / "meminfo", tmp_path / "cgroup", tmp_path)
    assert found.status is Status.NOTE
    assert "the control group leaves 1.00 GB" in found.found


def test_disk(tmp_path):
    assert str(tmp_path / "a/b") in machine.disk_finding(tmp_path / "a/b").found
    assert not (tmp_path / "a").exists()


def test_one_of_a_kind_is_said_as_one(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN3_CODEGEN_CACHE", str(tmp_path))
    for kind, count in {"runtime": 2, "engines": 1, "models": 3}.items():
        for number in range(count):
            (tmp_path / kind / (str(number) * 32)).mkdir(parents=True)
    found = next(caches.cache_findings({})).found
    assert re.search(r": 2 runtime 0 bytes, 1 engine 0 bytes, 3 models 0 bytes$", found)


def test_the_processor():
    subjects = [f.subject for f in machine.processor_findings()]
    assert subjects[:2] == ["processor", "--isa native"]


def test_every_device_but_the_cpu_has_a_toolchain():
    assert {load_device(name).infinicore for name in device_names()} == {"cpu", *TOOLCHAINS}


@pytest.mark.parametrize("name", sorted(TOOLCHAINS))
def test_vendor_compilers(name, tmp_path):
    toolchain = replace(TOOLCHAINS[name], folders=(str(tmp_path / "usual"),))
    empty = {"PATH": str(tmp_path / "bin")}
    assert find_vendor_compiler(toolchain, empty).compiler is None
    usual = program(tmp_path / "usual" / toolchain.compilers[-1])
    assert find_vendor_compiler(toolchain, empty).compiler == usual
    if not toolchain.variables:
        return
    for variable in toolchain.variables:
        for relative in toolchain.compilers:
            compiler = program(tmp_path / variable / relative)
            found = find_vendor_compiler(toolchain, {**empty, variable: str(tmp_path / variable)})
            assert found.compiler == compiler
            compiler.unlink()
    absent = find_vendor_compiler(toolchain, {**empty, toolchain.variables[0]: str(tmp_path)})
    assert absent.compiler is None
    assert absent.looked[0] == f"${toolchain.variables[0]} = {tmp_path}"


def test_a_vendor_compiler_on_the_path(tmp_path):
    compiler = program(tmp_path / "nvcc")
    nowhere = replace(TOOLCHAINS["nvidia"], folders=())
    found = find_vendor_compiler(nowhere, {"PATH": str(tmp_path)})
    assert found.compiler == compiler


def test_a_clang_on_the_path_is_nobodys(tmp_path):
    program(tmp_path / "clang++")
    for name in ("kunlun", "iluvatar"):
        nowhere = replace(TOOLCHAINS[name], folders=())
        assert find_vendor_compiler(nowhere, {"PATH": str(tmp_path)}).compiler is None


def test_the_interpreter_is_named():
    first = next(python_environment.python_findings())
    assert sys.executable in first.found


@pytest.mark.parametrize("package", ["cmake", "huggingface_hub", "yaml"])
def test_a_package_that_is_missing_does_not_end_the_report(package):
    """The doctor runs where an import fails, or it could not say which."""
    program = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from qwen3_codegen.cli.main import main\n"
        "sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("ok       Python")
    if package == "yaml":  # nothing can be read, but the packages were looked at
        assert re.search(r"^(ok|missing) +packag", done.stdout, re.MULTILINE)
    else:
        assert done.returncode == 1
        assert re.search(rf"^missing .*{package}", done.stdout, re.MULTILINE)
