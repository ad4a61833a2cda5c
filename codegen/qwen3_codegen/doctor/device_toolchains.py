"""What each device's own compiler is called, and where its makers put it.

The variables and folders are those that InfiniCore's own build reads (its ``xmake/*.lua``). An
engine needs none of them: it is plain C++ against InfiniCore's C API. InfiniCore's part for a
device does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TOOLCHAINS", "FoundCompiler", "VendorToolchain", "find_vendor_compiler"]


@dataclass(frozen=True, slots=True)
class VendorToolchain:
    """The compiler of one device."""

    label: str
    """What the vendor calls the whole kit."""
    variables: tuple[str, ...]
    """Environment variables that name its folder, the first that is set counts."""
    folders: tuple[str, ...]
    """Where it lies when none is set."""
    compilers: tuple[str, ...]
    """Paths of the compiler inside the folder."""


_CUDA = VendorToolchain(
    "CUDA toolkit", ("CUDA_HOME", "CUDA_PATH"), ("/usr/local/cuda",), ("bin/nvcc",)
)

TOOLCHAINS: Mapping[str, VendorToolchain] = {
    "nvidia": _CUDA,
    "ali": _CUDA,
    "cambricon": VendorToolchain(
        "Neuware", ("NEUWARE_HOME",), ("/usr/local/neuware",), ("bin/cncc",)
    ),
    "ascend": VendorToolchain(
        "CANN toolkit",
        ("ASCEND_HOME", "ASCEND_TOOLKIT_HOME"),
        ("/usr/local/Ascend/ascend-toolkit/latest",),
        ("bin/ccec", "compiler/ccec_compiler/bin/ccec"),
    ),
    "metax": VendorToolchain(
        "MACA",
        ("MACA_PATH", "MACA_HOME", "MACA_ROOT"),
        ("/opt/maca",),
        ("mxgpu_llvm/bin/mxcc", "htgpu_llvm/bin/htcc"),
    ),
    "moore": VendorToolchain(
        "MUSA toolkit", ("MUSA_ROOT", "MUSA_HOME", "MUSA_PATH"), ("/usr/local/musa",), ("bin/mcc",)
    ),
    "iluvatar": VendorToolchain("CoreX", (), ("/usr/local/corex",), ("bin/clang++",)),
    "kunlun": VendorToolchain("XTDK", ("KUNLUN_HOME",), (), ("xtdk/bin/clang++",)),
    "hygon": VendorToolchain(
        "DTK",
        ("DTK_ROOT",),
        ("/opt/dtk",),
        tuple(f"{cuda}/bin/nvcc" for cuda in ("cuda/cuda", "cuda/cuda-12", "cuda/cuda-11", "cuda")),
    ),
    "qy": VendorToolchain("SDK", ("QY_ROOT", "QY_HOME", "QY_PATH"), (), ("sdk/bin/dlcc",)),
}
"""By InfiniCore's device name; the CPU needs none."""


@dataclass(frozen=True, slots=True)
class FoundCompiler:
    """Where a vendor's compiler was looked for, and where it is."""

    compiler: Path | None
    looked: tuple[str, ...]
    """Variables and folders, as a person would name them."""


def find_vendor_compiler(
    toolchain: VendorToolchain, environment: Mapping[str, str] = os.environ
) -> FoundCompiler:
    """Looks where the variables say, else in the usual folders, then on the PATH."""
    chosen = next((name for name in toolchain.variables if environment.get(name)), None)
    roots = [environment[chosen]] if chosen else list(toolchain.folders)
    looked = [f"${chosen} = {roots[0]}"] if chosen else [f"${n}" for n in toolchain.variables]
    looked += [] if chosen else roots
    for root in roots:
        for relative in toolchain.compilers:
            if os.access(path := Path(root) / relative, os.X_OK) and path.is_file():
                return FoundCompiler(path, tuple(looked))
    names = [Path(relative).name for relative in toolchain.compilers]
    for name in dict.fromkeys(names):
        # Any clang++ is on many a PATH; only a vendor's own name tells whose it is.
        if name != "clang++" and (found := shutil.which(name, path=environment.get("PATH", ""))):
            return FoundCompiler(Path(found), tuple(looked))
    return FoundCompiler(None, (*looked, "PATH"))
