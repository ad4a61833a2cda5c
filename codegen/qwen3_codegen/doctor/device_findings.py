"""What a device needs beside the compiler of this machine: InfiniCore with a part for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from qwen3_codegen.doctor.device_toolchains import TOOLCHAINS, find_vendor_compiler
from qwen3_codegen.doctor.finding import Finding, missing, note, ok
from qwen3_codegen.errors import InfiniCoreError
from qwen3_codegen.infinicore.api import load_api
from qwen3_codegen.infinicore.install import InstalledInfiniCore, default_root, probe
from qwen3_codegen.spec.device import DeviceSpec

INFINI_ROOT = "INFINI_ROOT"
_COUNT_DEVICES = """\
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.infinirtInit()
count = ctypes.c_int(0)
status = library.infinirtGetDeviceCount(int(sys.argv[2]), ctypes.byref(count))
print(status, count.value)
"""
"""Runs by itself: a vendor's driver may hang, or end the process that asks it."""
_COUNT_SECONDS = 60


def device_findings(
    device: DeviceSpec, environment: Mapping[str, str] = os.environ
) -> Iterator[Finding]:
    """Yields what engines for a device need on this machine.

    Engines for the CPU need nothing. Others are built all the same and run emulated until an
    InfiniCore with a part for the device is there.
    """
    described = f": {device.description}" if device.description else ""
    yield ok("device", f"{device.label}{described}")
    installed, root_finding = infini_root_finding(environment, is_needed=not device.is_host)
    yield root_finding
    yield from _registry_finding()
    if device.is_host:
        return
    counted = _count_finding(device, installed) if installed else None
    if counted is not None:
        yield counted
    has_part = counted is not None and counted.mend is None
    yield from _compiler_finding(device, environment, is_needed=not has_part)


def infini_root_finding(
    environment: Mapping[str, str], *, is_needed: bool
) -> tuple[InstalledInfiniCore | None, Finding]:
    """Looks at the installation that $INFINI_ROOT names.

    Args:
        environment: As ``os.environ``.
        is_needed: Whether doing without means emulation.
    """
    text = environment.get(INFINI_ROOT)
    if not text:
        if not is_needed:
            return None, note(INFINI_ROOT, "not set; engines use the embedded InfiniCore")
        mend = "build InfiniCore with its part for the device and set INFINI_ROOT to its folder"
        return None, missing(INFINI_ROOT, "not set; engines for the device run emulated", mend)
    try:
        found = probe(Path(text))
    except (InfiniCoreError, OSError) as error:
        said = error.message if isinstance(error, InfiniCoreError) else str(error)
        mend = f"`--infinicore {text}` lists what is missing there; or unset INFINI_ROOT"
        fault = missing if is_needed else note
        return None, fault(INFINI_ROOT, f"{text}: {said}", mend)
    said = f"{found.root}, API release {found.release}; `--infinicore {text}` uses it"
    return found, ok(INFINI_ROOT, said)


def _registry_finding() -> Iterator[Finding]:
    """The installation that our own command makes, which is for the CPU."""
    root = default_root()
    try:
        found = probe(root)
    except InfiniCoreError:
        yield note(
            "InfiniCore 0.1.0",
            "not installed; needed for `--infinicore 0.1.0` only",
            "qwen3-codegen infinicore install",
        )
        return
    yield ok("InfiniCore 0.1.0", f"{found.root}, for the CPU; `--infinicore 0.1.0` uses it")


def _count_finding(device: DeviceSpec, installed: InstalledInfiniCore) -> Finding:
    """Asks the installed library itself how many such devices it sees."""
    subject = f"{device.infinicore} in InfiniCore"
    numbers = load_api(installed.release).devices
    if device.infinicore not in numbers:
        return missing(
            subject,
            f"release {installed.release} does not know it",
            f"install a release that does, such as {device.release}",
        )
    library = installed.lib_dir / "libinfinirt.so"
    status, count, fault = _count_devices(library, numbers[device.infinicore])
    if count > 0:
        return ok(subject, f"{count} found")
    said = fault or f"none found (infinirtGetDeviceCount gives status {status}, {count} devices)"
    return missing(
        subject,
        said,
        f"build InfiniCore with its part for {device.infinicore}; see that the driver is loaded",
    )


def _count_devices(library: Path, number: int) -> tuple[int, int, str | None]:
    """Returns status, count, and what went wrong when there is no answer."""
    command = [sys.executable, "-c", _COUNT_DEVICES, str(library), str(number)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COUNT_SECONDS)
    except subprocess.TimeoutExpired:
        return 0, 0, f"{library} does not answer within {_COUNT_SECONDS} s"
    words = done.stdout.split()[-2:]
    if done.returncode != 0 or len(words) != 2:
        last = next(iter(reversed(done.stderr.splitlines())), f"exit code {done.returncode}")
        return 0, 0, f"{library} cannot be asked: {last}"
    return int(words[0]), int(words[1]), None


def _compiler_finding(
    device: DeviceSpec, environment: Mapping[str, str], *, is_needed: bool
) -> Iterator[Finding]:
    """The vendor's compiler: InfiniCore's part for the device is built with it, engines are not."""
    toolchain = TOOLCHAINS.get(device.infinicore)
    if toolchain is None:
        return
    found = find_vendor_compiler(toolchain, environment)
    if found.compiler is not None:
        yield ok(toolchain.label, str(found.compiler))
        return
    said = f"no {' or '.join(dict.fromkeys(Path(c).name for c in toolchain.compilers))}; looked in "
    said += ", ".join(found.looked)
    names = f"set {toolchain.variables[0]}" if toolchain.variables else "put it in its usual place"
    if is_needed:
        mend = f"install {toolchain.label} and {names}: InfiniCore's part is built with it"
        yield missing(toolchain.label, said, mend)
    else:
        yield note(toolchain.label, f"{said}; needed only to build InfiniCore itself")
