"""Free memory from files as kernels and containers write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen3_runtime.engine.free_memory import available_memory, control_group_room


@pytest.fixture
def write(tmp_path):
    def write_files(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write_files


def available(root: Path) -> int:
    return available_memory(root / "meminfo", root / "cgroup", root / "mount")


def test_the_kernel_s_count(write, tmp_path):
    write({"meminfo": "MemTotal: 999 kB\nMemAvailable:   16 kB\n"})
    assert available(tmp_path) == 16 * 1024


@pytest.mark.parametrize("text", ["", "MemTotal: 999 kB\n"])
def test_where_nothing_is_said_8_gib_are_assumed(write, tmp_path, text):
    assert available(tmp_path) == 8 << 30
    write({"meminfo": text})
    assert available(tmp_path) == 8 << 30


V2 = {
    "no limit": ({"a/b/memory.max": "max\n", "a/b/memory.current": "5\n"}, None),
    "own": ({"a/b/memory.max": "100\n", "a/b/memory.current": "30\n"}, 70),
    "high is lower": (
        {"a/b/memory.max": "100", "a/b/memory.high": "60", "a/b/memory.current": "30"},
        30,
    ),
    "only high": (
        {"a/b/memory.max": "max", "a/b/memory.high": "60", "a/b/memory.current": "30"},
        30,
    ),
    "an ancestor's": (
        {
            "a/b/memory.max": "100",
            "a/b/memory.current": "30",
            "a/memory.max": "60",
            "a/memory.current": "40",
        },
        20,
    ),
    "a container's, whose group has the host's path": (
        {"memory.max": "100", "memory.current": "30"},
        70,
    ),
    "cached files can go": (
        {
            "a/b/memory.max": "100",
            "a/b/memory.current": "90",
            "a/b/memory.stat": "anon 40\nfile 50\nactive_file 20\ninactive_file 25\nshmem 5\n",
        },
        55,
    ),
    "exceeded": ({"a/b/memory.max": "10", "a/b/memory.current": "40"}, 0),
    "usage unknown": ({"a/b/memory.max": "10"}, 10),
    "another group's": ({"c/memory.max": "10", "c/memory.current": "1"}, None),
}


@pytest.mark.parametrize("name", V2)
def test_control_groups_v2(name, write, tmp_path):
    files, room = V2[name]
    write({"cgroup": "nonsense\n1:cpu:/else\n0::/a/b\n", "mount/cpu/else/memory.max": "1"})
    write({f"mount/{file}": text for file, text in files.items()})
    assert control_group_room(tmp_path / "cgroup", tmp_path / "mount") == room


def test_control_groups_v1(write, tmp_path):
    write(
        {
            "cgroup": "9:name=systemd:/\n4:cpuset,memory:/docker/x\n0::/\n",
            "mount/memory/docker/x/memory.limit_in_bytes": "1000\n",
            "mount/memory/docker/x/memory.usage_in_bytes": "700\n",
            "mount/memory/docker/x/memory.stat": "active_file 1\ntotal_active_file 100\n"
            "total_inactive_file 200\n",
            "mount/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "mount/memory/memory.usage_in_bytes": "5000\n",
        }
    )
    assert control_group_room(tmp_path / "cgroup", tmp_path / "mount") == 600


def test_a_path_never_leads_out_of_the_mount(write, tmp_path):
    write({"cgroup": "0::/../../secret\n", "secret/memory.max": "1"})
    assert control_group_room(tmp_path / "cgroup", tmp_path / "mount") is None


def test_the_smaller_count_holds(write, tmp_path):
    write(
        {
            "cgroup": "0::/\n",
            "mount/memory.max": str(64 * 1024),
            "mount/memory.current": "0",
        }
    )
    for kilobytes, expected in ((16, 16), (100, 64)):
        write({"meminfo": f"MemAvailable: {kilobytes} kB\n"})
        assert available(tmp_path) == expected * 1024


def test_this_machine_has_memory():
    assert 1 << 20 < available_memory() < 1 << 50
