"""C++ programs against kernels and libraries: instruction sets, sanitizers, the shared names."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infinicore.builds import KERNELS, SOURCE, Build, compiler, run

pytestmark = pytest.mark.compile

PROGRAMS = Path(__file__).parent / "cpp"
STRICT = ("-std=c++17", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror")
IS_X86 = platform.machine() in ("x86_64", "AMD64")

THREAD = "-fsanitize=thread"
ADDRESS = "-fsanitize=address,undefined -fno-sanitize-recover=all"


def flags_of_host() -> set[str]:
    text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    return set(text.partition("flags")[2].partition("\n")[0].split())


def isas() -> list:
    sets = {"portable": ("", set())}
    if IS_X86:
        sets["avx2"] = ("-march=x86-64-v3", {"avx2", "fma", "f16c"})
        sets["avx512"] = ("-march=x86-64-v4", {"avx512f", "avx512bw", "avx512vl", "avx512dq"})
        sets["avx512-bf16"] = ("-march=x86-64-v4 -mavx512bf16", {"avx512_bf16"})
    return [
        pytest.param(
            name,
            flags,
            id=name,
            marks=pytest.mark.skipif(not needs <= flags_of_host(), reason=f"no {name} here"),
        )
        for name, (flags, needs) in sets.items()
    ]


every_program = pytest.mark.parametrize("source", ["kernels_test", "gemm_test", "native_test"])


@every_program
@pytest.mark.parametrize(("name", "isa"), isas())
def test_kernels(tmp_path, source, name, isa):
    program = tmp_path / source
    command = [compiler(), *STRICT, "-O1", *isa.split(), f"-I{KERNELS}", f"-I{PROGRAMS}"]
    run([*command, str(PROGRAMS / f"{source}.cpp"), "-o", str(program), "-pthread"])
    assert run([str(program)]).strip() == name


@every_program
@pytest.mark.parametrize("sanitizer", [THREAD, ADDRESS], ids=["thread", "address-undefined"])
def test_kernels_under_a_sanitizer(tmp_path, source, sanitizer):
    program = tmp_path / source
    # Optimising what AddressSanitizer adds takes longer than it spares; products are many.
    level = "-O0" if sanitizer == ADDRESS and source != "gemm_test" else "-O1"
    command = [compiler(), *STRICT, level, "-g1", *sanitizer.split(), f"-I{KERNELS}"]
    command += [f"-I{PROGRAMS}", str(PROGRAMS / f"{source}.cpp"), "-o", str(program)]
    run([*command, "-pthread"])
    run([str(program)])


SANITIZED = ("device_memory", "devices", "infiniccl", "infinirt", "operator", "tensor", "threads")
SANITIZED_OPERATORS = ("causal_softmax", "gemm", "rearrange")


@pytest.mark.parametrize("sanitizer", [THREAD, ADDRESS], ids=["thread", "address-undefined"])
def test_operators_under_a_sanitizer(builder, tmp_path, sanitizer):
    program = tmp_path / "operators_test"
    folders = [builder.headers("0.1.0"), SOURCE / "include", SOURCE / "src", KERNELS, PROGRAMS]
    sources = [SOURCE / "src" / f"{name}.cpp" for name in SANITIZED]
    sources += [SOURCE / "src" / "ops" / f"{name}.cpp" for name in SANITIZED_OPERATORS]
    command = [compiler(), *STRICT, "-O0", "-g1", *sanitizer.split(), "-DINFINICORE_HIDDEN"]
    command += [*(f"-I{folder}" for folder in folders), *map(str, sources)]
    run([*command, str(PROGRAMS / "operators_test.cpp"), "-o", str(program), "-pthread"])
    assert run([str(program)]).strip() == "ok"


VECTOR_SOURCES = ("elementwise", "gemm", "rms_norm", "rope", "causal_softmax")


def test_arm64_compiles(builder):
    cross = shutil.which("aarch64-linux-gnu-g++")
    if cross is None:
        pytest.skip("aarch64-linux-gnu-g++ is not installed (Debian: g++-aarch64-linux-gnu)")
    folders = [builder.headers("2026-08"), SOURCE / "include", SOURCE / "src", KERNELS, PROGRAMS]
    command = [cross, *STRICT, "-fsyntax-only", *(f"-I{folder}" for folder in folders)]
    sources = [SOURCE / "src" / "ops" / f"{name}.cpp" for name in VECTOR_SOURCES]
    sources += [
        PROGRAMS / "native_test.cpp",
        PROGRAMS / "kernels_test.cpp",
        PROGRAMS / "gemm_test.cpp",
        SOURCE / "src" / "device_memory.cpp",
    ]
    run([*command, *map(str, sources)])


def test_an_engine_shows_nothing_of_the_library_in_it(builder, tmp_path):
    """Two engines in one process must not find each other's library."""
    engine = tmp_path / "engine.cpp"
    engine.write_text(
        "#include <infiniop.h>\n"
        'extern "C" __attribute__((visibility("default"))) int engine() {\n'
        "  infiniopHandle_t handle;\n"
        "  return infiniopCreateHandle(&handle) + infiniopDestroyHandle(handle);\n}\n"
    )
    shared = tmp_path / "engine.so"
    folders = [builder.headers("0.1.0"), SOURCE / "include", SOURCE / "src"]
    names = ("device_memory", "devices", "operator", "tensor")
    sources = [engine, *(SOURCE / "src" / f"{name}.cpp" for name in names)]
    command = [compiler(), "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden"]
    command += ["-DINFINICORE_HIDDEN", *(f"-I{folder}" for folder in folders)]
    run([*command, *map(str, sources), "-o", str(shared)])
    symbols = run(["nm", "-D", "--defined-only", str(shared)])
    exported = {line.split()[-1] for line in symbols.splitlines()}
    assert "engine" in exported
    ours = ("infini", "qwen3", "_ZN5qwen3", "_ZNK5qwen3")
    assert not [name for name in exported if name.startswith(ours)]


def test_shared_libraries_carry_infinicores_names(builder):
    folder = builder.make(Build("0.1.0", kind="shared", optimised=False))
    for name, needs in [("infinirt", set()), ("infiniop", {"infinirt"}), ("infiniccl", set())]:
        dynamic = run(["readelf", "-d", str(folder / f"lib{name}.so")])
        assert f"soname: [lib{name}.so]" in dynamic
        for needed in needs:
            assert f"[lib{needed}.so]" in dynamic
        symbols = run(["nm", "-D", "--defined-only", str(folder / f"lib{name}.so")])
        assert any(line.split()[-1].startswith(name) for line in symbols.splitlines())
    # In a process of its own: the loader would mix these up with others of the same names.
    program = (
        "from pathlib import Path; from tests.infinicore import abi, parity; "
        f"library = abi.Library.installed('0.1.0', Path({str(folder)!r})); "
        "operands = parity.gemm_layouts(5, 19, 7, 'bf16')['weight']; "
        "parity.check_gemm(library, operands, dtype='bf16')"
    )
    run([sys.executable, "-c", program])


def test_headers_of_another_release_are_refused(builder):
    command = ["cmake", "-S", str(SOURCE), "-B", str(builder.headers("0.1.0").parent / "wrong")]
    without = subprocess.run(
        [*command, "-DQWEN3_INFINICORE_HEADERS=/nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert without.returncode != 0
    assert "qwen3_api_table.hpp" in without.stderr
    source = SOURCE / "src" / "devices.cpp"
    compile_one = [compiler(), *STRICT, "-fsyntax-only", f"-I{builder.headers('0.1.0')}"]
    compile_one += [f"-I{SOURCE / 'include'}", f"-I{SOURCE / 'src'}", str(source)]
    run([*compile_one, '-DQWEN3_EXPECTED_RELEASE="0.1.0"'])
    other = subprocess.run(
        [*compile_one, '-DQWEN3_EXPECTED_RELEASE="2026-08"'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "of another release" in other.stderr
