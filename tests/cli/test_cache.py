"""``cache``: what is listed, what is cleared, and what is never touched."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from qwen3_codegen.build import builder
from qwen3_codegen.build.cache import cache_for_oneself
from qwen3_codegen.cache_contents import clear_cache
from qwen3_codegen.errors import CodegenError

KEYS = ["0" * 32, "1" * 32, "f" * 32]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with an entry of each kind, and files of somebody else."""
    root = tmp_path / "cache"
    for name, content in {
        f"runtime/{KEYS[0]}/libqwen3.a": "a" * 1000,
        f"engines/{KEYS[1]}/libtiny_cpu.so": "b" * 500,
        f"engines/.{KEYS[2]}.x7/half": "c" * 10,
        f"models/{KEYS[2]}/qwen3_cpu/_engine.so": "d" * 300,
        "infinicore/0.1.0/include/infinicore.h": "e" * 20,
        "infinicore/mine/notes.txt": "not ours",
        "engines/notes/a": "not ours",
        "thesis.txt": "not ours",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    for lock in (f"runtime/{KEYS[0]}.lock", "locks/a.lock", "infinicore/.0.1.0.lock"):
        (root / lock).parent.mkdir(exist_ok=True)
        (root / lock).touch()
    return root


def ours(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root)) for path in root.rglob("*")
        if path.is_file() and path.suffix != ".lock" and "not ours" not in path.read_text()
    )  # fmt: skip


def foreign(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()
                  and "not ours" in p.read_text())  # fmt: skip


def test_path(cli, tmp_path):
    result = cli("cache", "path", QWEN3_CODEGEN_CACHE=str(tmp_path / "there"))
    assert result.succeeded() == f"{tmp_path / 'there'}\n"
    assert not (tmp_path / "there").exists()


def test_list(cli, cache):
    result = cli("cache", "list", QWEN3_CODEGEN_CACHE=str(cache))
    rows = [line.split()[:4] for line in result.succeeded().splitlines()]
    assert rows == [
        ["runtime", KEYS[0], "1.0", "kB"],
        ["engines", "(interrupted)", "10", "bytes"],
        ["engines", "tiny_cpu", "500", "bytes"],
        ["models", "qwen3_cpu", "300", "bytes"],
        ["infinicore", "0.1.0", "20", "bytes"],
    ]
    assert "5 entries (1.8 kB)" in result.stderr


MANIFEST = {"model": "tiny", "device": {"name": "cpu", "lowering": "native"}, "dtype": "bfloat16"}


def test_an_engine_is_listed_by_what_its_manifest_says(cli, cache):
    """A folder of the key's name says nothing to anybody."""
    compiled, named = cache / "engines" / KEYS[1], cache / "models" / KEYS[2] / "qwen3_cpu"
    (compiled / "manifest.json").write_text(json.dumps({**MANIFEST, "tracing": {}}))
    mine = {
        **MANIFEST,
        "device": {**MANIFEST["device"], "name": "cambricon", "description": "mine"},
    }
    (named / "manifest.json").write_text(json.dumps(mine))
    (named / "build.json").write_text(json.dumps({"isa": {"name": "avx2"}}))
    damaged = cache / "engines" / KEYS[0]
    damaged.mkdir()
    (damaged / "manifest.json").write_text("[1]")
    text = cli("cache", "list", QWEN3_CODEGEN_CACHE=str(cache)).succeeded()
    names = re.findall(r"^(?:engines|models) +(.*?)  ", text, re.MULTILINE)
    assert names == [
        "(interrupted)",
        KEYS[0],
        "tiny cpu bfloat16 traced, native lowering, with C library",
        "tiny mine (cambricon) bfloat16, native lowering, isa avx2",
    ]


def test_list_of_nothing(cli, tmp_path):
    result = cli("cache", "list", QWEN3_CODEGEN_CACHE=str(tmp_path / "there"))
    assert result.succeeded() == ""
    assert "0 entries" in result.stderr


def test_clear(cli, cache):
    before = foreign(cache)
    result = cli("cache", "clear", QWEN3_CODEGEN_CACHE=str(cache))
    assert result.succeeded() == ""
    assert "cleared 5 entries (1.8 kB)" in result.stderr
    assert ours(cache) == []
    assert foreign(cache) == before == ["engines/notes/a", "infinicore/mine/notes.txt",
                                        "thesis.txt"]  # fmt: skip
    assert "cleared 0 entries" in cli("cache", "clear", QWEN3_CODEGEN_CACHE=str(cache)).stderr


def test_clear_what_is_old(cli, cache):
    old = time.time() - 10 * 24 * 3600
    folder = cache / "engines" / KEYS[1]
    for path in (folder / "libtiny_cpu.so", folder):
        os.utime(path, (old, old))
    result = cli("cache", "clear", "--older-than", "7", QWEN3_CODEGEN_CACHE=str(cache))
    assert "cleared 1 entry" in result.stderr
    assert not folder.exists()
    assert len(ours(cache)) == 4


@pytest.mark.parametrize(
    "lock", [f"runtime/{KEYS[0]}.lock", "locks/a.lock", "infinicore/.0.1.0.lock"]
)
def test_clear_while_somebody_builds(lock, cli, cache):
    before = ours(cache)
    with FileLock(cache / lock):
        error = cli("cache", "clear", QWEN3_CODEGEN_CACHE=str(cache)).refused()
    assert lock in error
    assert ours(cache) == before
    cli("cache", "clear", QWEN3_CODEGEN_CACHE=str(cache)).succeeded()


def test_a_build_and_clearing_keep_each_other_out(cache, monkeypatch):
    """Also of a build that takes everything from the cache, and makes nothing itself."""
    monkeypatch.setenv("QWEN3_CODEGEN_CACHE", str(cache))
    before = ours(cache)

    def clears(*_: object, **__: object) -> None:
        with pytest.raises(CodegenError, match="builds or loads an engine"):
            clear_cache()

    monkeypatch.setattr(builder, "_build_locked", clears)
    builder.build_engine(cache / "engine", {}, None, print)
    assert ours(cache) == before
    use = "from qwen3_codegen.build.cache import cache_in_use\nwith cache_in_use(): print('in')"
    with cache_for_oneself():
        waiting = subprocess.Popen([sys.executable, "-c", use], stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=1.5)
    assert waiting.communicate(timeout=60)[0] == b"in\n"
    assert len(clear_cache()) == 5


def test_links_are_not_followed(cli, cache, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "photo").write_text("not ours", encoding="utf-8")
    (cache / "models" / ("a" * 32)).symlink_to(outside)
    (cache / "runtime" / KEYS[0] / "link").symlink_to(outside)
    cli("cache", "clear", QWEN3_CODEGEN_CACHE=str(cache)).succeeded()
    assert (outside / "photo").is_file()


@pytest.mark.parametrize("days", ["-1", "soon", "nan", "inf"])
def test_days_that_are_none(days, cli, cache):
    error = cli("cache", "clear", "--older-than", days, QWEN3_CODEGEN_CACHE=str(cache)).refused()
    assert days in error
    assert len(ours(cache)) == 5


def test_a_cleared_cache_is_filled_again(cli, cache):
    """The lock files that stay are those the next build takes."""
    cli("cache", "clear", QWEN3_CODEGEN_CACHE=str(cache)).succeeded()
    make = (
        "from qwen3_codegen.build.cache import cached_folder\n"
        f"print(cached_folder('runtime', {KEYS[0]!r}, lambda f: (f / 'made').touch()))"
    )
    environment = {**os.environ, "QWEN3_CODEGEN_CACHE": str(cache)}
    subprocess.run([sys.executable, "-c", make], env=environment, check=True, capture_output=True)
    assert ours(cache) == [f"runtime/{KEYS[0]}/made"]
