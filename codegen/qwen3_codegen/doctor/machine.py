"""Processor, memory and disk of this machine."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from qwen3_codegen.doctor.finding import Finding, note, ok
from qwen3_codegen.progress import format_bytes
from qwen3_runtime.engine.free_memory import control_group_room

_LITTLE_MEMORY = 2 << 30
"""Compiling an engine takes up to 1 GB, the smallest models as much again."""
_LITTLE_DISK = 2 << 30
_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/proc/self/cgroup")
_CGROUP_MOUNT = Path("/sys/fs/cgroup")


def processor_findings() -> Iterator[Finding]:
    """Yields the processor, what ``--isa native`` means on it, and what else may be chosen."""
    usable = len(os.sched_getaffinity(0))
    yield ok("processor", f"{_model_name()}, {usable} of {os.cpu_count()} usable")
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        yield note("--isa", f"{machine}: native and portable only; engines were not run there yet")
        return
    from qwen3_codegen.build.toolchain import host_features, instruction_set

    native = instruction_set("native").features
    yield ok("--isa native", f"{', '.join(native) or 'no extension we use'}")
    for name in ("avx2", "avx512", "avx512-bf16"):
        needed = instruction_set(name).features
        lacking = [f for f in needed if f not in host_features(needed)]
        if lacking:
            yield note(f"--isa {name}", f"this processor lacks {', '.join(lacking)}")
        else:
            yield ok(f"--isa {name}", "runs here")


def _model_name() -> str:
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2] for line in text.splitlines() if line.startswith("model name"))
    return " ".join(next(names, platform.machine()).split())


def memory_finding(
    meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP, mount: Path = _CGROUP_MOUNT
) -> Finding:
    """Tells how much memory there is, how much is free, and whether a control group caps it."""
    try:
        total, free = _meminfo(meminfo)
    except (OSError, ValueError, KeyError):
        return note("memory", f"{meminfo} does not say")
    said = f"{format_bytes(total)}, {format_bytes(free)} of it free"
    room = control_group_room(cgroup, mount)
    if room is not None and room < free:
        free = room
        said += f"; the control group leaves {format_bytes(room)}"
    if free < _LITTLE_MEMORY:
        return note("memory", said, "close programs, or choose small models and --max-model-len")
    return ok("memory", said)


def _meminfo(file: Path) -> tuple[int, int]:
    fields = {}
    for line in file.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        fields[name] = value
    total, free = (int(fields[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return total * 1024, free * 1024


def disk_finding(folder: Path) -> Finding:
    """Tells how much room there is where a folder lies or would lie."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    usage = shutil.disk_usage(there)
    said = f"{format_bytes(usage.free)} of {format_bytes(usage.total)} free for {folder}"
    if not os.access(there, os.W_OK):
        return note("disk", f"{there} may not be written", "set QWEN3_CODEGEN_CACHE elsewhere")
    if usage.free < _LITTLE_DISK:
        return note(
            "disk", said, "`qwen3-codegen cache clear`, or set QWEN3_CODEGEN_CACHE elsewhere"
        )
    return ok("disk", said)
