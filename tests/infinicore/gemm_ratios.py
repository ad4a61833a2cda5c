"""Prints how much faster the embedded library's matrix product is than the real library's.

    python -m tests.infinicore.gemm_ratios [N K]

Builds both (the real one from the package registry), runs the same program linked with each, one
after the other, and prints both tables and the ratio of every line.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from qwen3_codegen.infinicore.install import default_root, install, probe
from tests.infinicore.builds import SOURCE, Build, Builder, compiler, run

_LINE = re.compile(r"^(\S+)\s+M=(\d+)\s.*?([\d.]+) GFLOP/s", re.MULTILINE)


def speeds(output: str) -> dict[tuple[str, int], float]:
    """Returns GFLOP/s by type and number of rows."""
    return {(name, int(rows)): float(speed) for name, rows, speed in _LINE.findall(output)}


def main(sizes: list[str]) -> None:
    """Runs the comparison for weights of [N, K]."""
    real = probe(install(default_root("0.1.0"), progress=print))
    program = str(SOURCE / "bench" / "gemm_bench.cpp")
    with tempfile.TemporaryDirectory() as scratch:
        builder = Builder(Path(scratch), cache=Path(scratch))
        archive = builder.make(Build("0.1.0", kind="static")) / "libinfinicore_embedded.a"
        compile_it = [compiler(), "-std=c++17", "-O2", program]
        embedded_program, real_program = f"{scratch}/embedded", f"{scratch}/real"
        include = f"-I{builder.headers('0.1.0')}"
        run(
            [
                *compile_it,
                include,
                "-DINFINICORE_HIDDEN",
                str(archive),
                "-o",
                embedded_program,
                "-pthread",
            ]
        )
        run(
            [
                *compile_it,
                f"-I{real.include_dir}",
                f"-L{real.lib_dir}",
                "-linfiniop",
                "-linfinirt",
                f"-Wl,-rpath,{real.lib_dir}",
                "-o",
                real_program,
            ]
        )
        ours, theirs = (speeds(run([name, *sizes])) for name in (embedded_program, real_program))
    print(
        f"{'':12}{'embedded':>12}{'real 0.1.0':>12}{'ratio':>8}   "
        f"GFLOP/s, N={sizes[0]} K={sizes[1]}"
    )
    for (name, rows), speed in ours.items():
        other = theirs[name, rows]
        print(f"{name:5} M={rows:<5}{speed:12.1f}{other:12.2f}{speed / other:8.0f}")


if __name__ == "__main__":
    main(sys.argv[1:3] if len(sys.argv) > 2 else ["1536", "1024"])
