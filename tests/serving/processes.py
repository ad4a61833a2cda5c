"""What the kernel says of processes."""

from __future__ import annotations

import os
from pathlib import Path


def children(pid: int) -> list[int]:
    """All that a process started and what those started, as far as it is still there."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            own = [int(word) for word in tasks.read_text(encoding="ascii").split()]
        except OSError:
            continue
        for child in own:
            found += [child, *children(child)]
    return found


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM and not a mapped file."""
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def engine_of(server_pid: int) -> int:
    """The engine's process: the largest that a server started."""
    return max(children(server_pid), key=resident_bytes)
