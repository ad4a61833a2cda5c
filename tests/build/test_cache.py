"""Folders of build results: complete or absent, whoever interrupts or competes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_codegen.build.cache import cached_folder, content_key, source_texts


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN3_CODEGEN_CACHE", str(tmp_path))


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


# ---- keys -----------------------------------------------------------------------------------


@given(st.lists(st.text()), st.lists(st.text()))
def test_keys_are_equal_for_equal_parts_only(first, second):
    assert (content_key(first) == content_key(second)) == (first == second)


def test_keys_do_not_confuse_borders():
    assert content_key(["ab", "c"]) != content_key(["a", "bc"]) != content_key(["abc"])
    assert content_key([]) != content_key([""])
    assert len(content_key(["x"])) == 32
    assert content_key(["x"]) == content_key(iter(["x"]))


def test_source_texts_hold_paths_and_contents_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.cpp").write_text("two")
    (tmp_path / "a.hpp").write_text("one")
    (tmp_path / "c.md").write_text("not a source")
    assert source_texts(tmp_path, (".hpp", ".cpp")) == ["a.hpp\none", "b/x.cpp\ntwo"]
    (tmp_path / "a.hpp").write_bytes("\u4e2d".encode("gbk"))
    assert source_texts(tmp_path, (".hpp",)) == ["a.hpp\n\\xd6\\xd0"]


# ---- folders --------------------------------------------------------------------------------


def test_a_folder_is_made_once(tmp_path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "result").write_text("built")

    first = cached_folder("kind", "key", make)
    assert cached_folder("kind", "key", make) == first == tmp_path / "kind" / "key"
    assert (first / "result").read_text() == "built"
    assert len(made) == 1
    assert made[0] != first, "it is made elsewhere and renamed"
    assert visible(tmp_path / "kind") == ["key"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing_and_may_be_tried_again(tmp_path, error):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise error

    with pytest.raises(error):
        cached_folder("kind", "key", fail)
    assert visible(tmp_path / "kind") == []
    assert cached_folder("kind", "key", lambda folder: None).is_dir()


def test_a_folder_is_made_again_and_takes_the_old_one_s_place(tmp_path):
    old = cached_folder("kind", "key", lambda folder: (folder / "old").touch())

    def make(folder: Path) -> None:
        assert (old / "old").exists(), "the old one serves until the new one is complete"
        (folder / "new").touch()

    assert cached_folder("kind", "key", make, again=True) == old
    assert [path.name for path in old.iterdir()] == ["new"]
    assert visible(tmp_path / "kind") == ["key"]
    assert cached_folder("kind", "other", lambda folder: None, again=True).is_dir()


def test_a_folder_that_cannot_be_made_again_stays(tmp_path):
    old = cached_folder("kind", "key", lambda folder: (folder / "old").touch())

    def fail(folder: Path) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cached_folder("kind", "key", fail, again=True)
    assert [path.name for path in old.iterdir()] == ["old"]
    assert visible(tmp_path / "kind") == ["key"]


MAKER = """
import sys, time
from pathlib import Path
from qwen3_codegen.build.cache import cached_folder

def make(folder):
    (folder / "half").write_text("x")
    print("making", flush=True)
    time.sleep(float(sys.argv[1]))
    (folder / "done").write_text("x")

print(cached_folder("kind", "key", make), flush=True)
"""


def start(seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, str(seconds)], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_maker_leaves_nothing_that_is_taken_for_a_result(tmp_path):
    process = start(60)
    assert process.stdout is not None
    assert process.stdout.readline() == "making\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "kind" / "key").exists()
    assert len(visible(tmp_path / "kind")) == 1, "the killed one's own folder"

    def make(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "done").write_text("x")

    folder = cached_folder("kind", "key", make)
    assert [path.name for path in folder.iterdir()] == ["done"]
    assert visible(tmp_path / "kind") == ["key"], "what was left is cleared away"


def test_of_two_at_once_one_makes_and_the_other_waits(tmp_path):
    processes = [start(1.0) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(output.count("making") for output in outputs) == [0, 1]
    folder = tmp_path / "kind" / "key"
    assert all(output.endswith(f"{folder}\n") for output in outputs)
    assert sorted(path.name for path in folder.iterdir()) == ["done", "half"]


def test_different_keys_do_not_wait_for_each_other(tmp_path):
    slow = start(30)
    assert slow.stdout is not None
    assert slow.stdout.readline() == "making\n"
    began = time.monotonic()
    cached_folder("kind", "other", lambda folder: None)
    assert time.monotonic() - began < 20
    slow.kill()
    slow.communicate()
    assert visible(tmp_path / "kind")[-1] == "other"
