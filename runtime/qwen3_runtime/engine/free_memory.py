"""How much memory may be taken: what the kernel counts, or less where control groups bound it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_UNKNOWN = 8 << 30
"""Taken to be free where nothing says how much is."""


@dataclass(frozen=True, slots=True)
class _Names:
    """Files of a control group, and what its ``memory.stat`` calls pages that can be given back."""

    limits: tuple[str, ...]
    used: str
    reclaimable: tuple[str, ...]


_V2 = _Names(("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file"))
_V1 = _Names(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)


def available_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP, mount: Path = _MOUNT) -> int:
    """Returns the bytes this process may take without swapping or being ended for it.

    Args:
        meminfo: The kernel's count of the machine's memory.
        cgroup: The process's control groups.
        mount: Where control groups are mounted.
    """
    counts = (_machine_room(meminfo), control_group_room(cgroup, mount))
    return min((count for count in counts if count is not None), default=_UNKNOWN)


def control_group_room(cgroup: Path = _CGROUP, mount: Path = _MOUNT) -> int | None:
    """Returns the bytes that this process's control groups still allow; None without a limit.

    Every ancestor has a limit of its own. Inside a container a group's path may be the host's,
    while its files lie at the mount itself: folders that do not exist say nothing.
    """
    rooms = (_group_room(folder, names) for folder, names in _groups(cgroup, mount))
    return min((room for room in rooms if room is not None), default=None)


def _machine_room(meminfo: Path) -> int | None:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _groups(cgroup: Path, mount: Path) -> Iterator[tuple[Path, _Names]]:
    """Yields folders of control groups with a say on memory; lines are ``number:names:path``."""
    for line in _lines(cgroup):
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, names = mount, _V2
        elif "memory" in controllers.split(","):
            folder, names = mount / "memory", _V1
        else:
            continue
        yield folder, names
        for part in path.split("/"):
            if part not in ("", ".", ".."):
                folder = folder / part
                yield folder, names


def _group_room(folder: Path, names: _Names) -> int | None:
    limits = [limit for name in names.limits if (limit := _number(folder / name)) is not None]
    if not limits:
        return None
    used = _number(folder / names.used) or 0
    fields = (line.split() for line in _lines(folder / "memory.stat"))
    cached = sum(int(words[1]) for words in fields if words[:1] and words[0] in names.reclaimable)
    return max(0, min(limits) - max(0, used - cached))


def _number(file: Path) -> int | None:
    """A file's one number; None for ``max``, and where there is no such file."""
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdecimal() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
