"""Building the registry's InfiniCore, and telling what an installation is."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from pathlib import Path

import pytest

from qwen3_codegen.compile import CompileOptions, plan_model
from qwen3_codegen.errors import BuildError, CodegenError, InfiniCoreError
from qwen3_codegen.infinicore import install as module
from qwen3_codegen.infinicore.headers import write_headers
from qwen3_codegen.infinicore.install import default_root, install, probe
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device

SOURCES = {
    "include/infinicore.h": "#define __C\n",
    "include/infinirt.h": "",
    "include/infiniop.h": "",
    "include/infiniop/ops/rope.h": "enum { INFINIOP_ROPE_ALGO_COUNT = 2 };\n",
    "src/utils/check.cc": "int check() { return 1; }\n",
    "src/infinirt/infinirt.cc": 'extern "C" int infinirtInit() { return 0; }\n',
    "src/infiniop/handle.cc": 'extern "C" int infiniopCreateHandle() { return 0; }\n',
    "src/infiniccl/infiniccl.cc": 'extern "C" int infinicclCommDestroy() { return 0; }\n',
}
"""The shape of a source tree, small enough to compile at once."""


def source_tree(folder: Path, **changed: str) -> Path:
    for name, text in {**SOURCES, **changed}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def archive_of(path: Path, members: dict[str, str | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            tar.addfile(info, io.BytesIO(content.encode()))
    return path


def trust(monkeypatch: pytest.MonkeyPatch, archive: Path) -> Path:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(module._SHA256, "0.1.0", digest)
    return archive


def everything_below(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.mark.compile
def test_a_source_tree_becomes_a_root(tmp_path):
    told: list[str] = []
    root = tmp_path / "made" / "0.1.0"
    source = source_tree(tmp_path / "source")
    assert install(root, source=source, progress=told.append) == root
    found = probe(root)
    assert (found.release, found.lib_dir) == ("0.1.0", root / "lib")
    assert (root / "lib" / "libinfiniccl.so").is_file()
    assert told == ["compiling InfiniCore"]
    assert found.devices == ("cpu",)
    assert everything_below(root) == {"devices.txt", "include", "lib"}
    assert everything_below(root.parent) == {"0.1.0", ".0.1.0.lock"}
    again: list[str] = []
    install(root, source=tmp_path / "gone", progress=again.append)
    assert again == []  # it is there already


@pytest.mark.compile
def test_two_installations_at_once_make_one(tmp_path, monkeypatch):
    members = {f"infinicore-0.1.0/{name}": text for name, text in SOURCES.items()}
    archive = trust(monkeypatch, archive_of(tmp_path / "sdist.tar.gz", members))
    root, told = tmp_path / "root", []
    threads = [
        threading.Thread(
            target=install, args=(root,), kwargs={"source": archive, "progress": told.append}
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["compiling InfiniCore"]
    assert probe(root).release == "0.1.0"


@pytest.mark.compile
def test_sources_that_do_not_compile_leave_nothing(tmp_path):
    source = source_tree(tmp_path / "source", **{"src/infiniop/handle.cc": "int broken( {\n"})
    root = tmp_path / "made" / "root"
    with pytest.raises(InfiniCoreError, match="did not compile") as caught:
        install(root, source=source)
    assert "handle.cc" in str(caught.value)
    assert everything_below(root.parent) == {".root.lock"}


def test_an_archive_with_another_digest_is_refused(tmp_path):
    archive = archive_of(tmp_path / "sdist.tar.gz", {"infinicore-0.1.0/a": "b"})
    with pytest.raises(InfiniCoreError, match="not the source archive of InfiniCore"):
        install(tmp_path / "root", source=archive)
    assert not (tmp_path / "root").exists()


def test_a_root_that_cmake_cannot_work_in_is_refused(tmp_path):
    with pytest.raises(BuildError, match="cannot work in a folder of this name"):
        install(tmp_path / "a;b" / "0.1.0", source=source_tree(tmp_path / "source"))
    assert not (tmp_path / "a;b").exists()


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "members",
    [
        {"infinicore-0.1.0/../../evil": "x"},
        {"/evil": "x"},
        {"infinicore-0.1.0/link": link("infinicore-0.1.0/link")},
        {"one/a": "x", "two/a": "x"},
    ],
    ids=["parent", "absolute", "link", "two tops"],
)
def test_unsafe_archives_are_refused(tmp_path, monkeypatch, members):
    archive = trust(monkeypatch, archive_of(tmp_path / "sdist.tar.gz", members))
    with pytest.raises(InfiniCoreError, match=r"unsafe entry|not a source distribution"):
        install(tmp_path / "deep" / "root", source=archive)
    assert not (tmp_path / "evil").exists()
    assert everything_below(tmp_path / "deep") == {".root.lock"}


def test_what_cannot_be_installed(tmp_path):
    with pytest.raises(InfiniCoreError, match=r"InfiniCore 0\.2\.0 cannot be installed"):
        install(tmp_path / "root", version="0.2.0")
    with pytest.raises(InfiniCoreError, match="part for 'nvidia' cannot be built here"):
        install(tmp_path / "root", device="nvidia")
    with pytest.raises(InfiniCoreError, match="not InfiniCore's source"):
        install(tmp_path / "root", source=tmp_path)
    with pytest.raises(InfiniCoreError, match="cannot read the source archive"):
        install(tmp_path / "root", source=tmp_path / "none.tar.gz")
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "file").write_text("mine")
    with pytest.raises(InfiniCoreError, match="no InfiniCore installation here"):
        install(occupied)
    assert (occupied / "file").read_text() == "mine"


def test_a_failed_download_says_what_pip_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{tmp_path}/no-index")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(InfiniCoreError, match="pip could not download") as caught:
        install(tmp_path / "root")
    assert "infinicore" in str(caught.value).lower()
    assert "pass it as the source" in str(caught.value)


@pytest.mark.parametrize("release", ["2025-08", "0.1.0", "2026-08"])
@pytest.mark.parametrize("lib", ["lib", "lib/lib"])
def test_probe_tells_the_release(tmp_path, release, lib):
    write_headers(release, tmp_path / "include")
    (tmp_path / lib).mkdir(parents=True)
    for name in ("libinfinirt.so", "libinfiniop.so"):
        (tmp_path / lib / name).touch()
    found = probe(tmp_path)
    assert (found.release, found.lib_dir) == (release, tmp_path / lib)
    assert found.include_dir == tmp_path / "include"


@pytest.mark.compile
def test_an_engine_for_a_device_it_was_not_built_for_is_refused(tmp_path):
    root = install(tmp_path / "root", source=source_tree(tmp_path / "source"))
    options = CompileOptions(infinicore=str(root))
    with pytest.raises(CodegenError, match="not built for 'mlu'") as caught:
        plan_model(load_model("qwen3-0.6b"), load_device("mlu"), options)
    assert "leave --infinicore out to emulate" in str(caught.value)


def test_probe_lists_what_it_looked_at(tmp_path):
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "infinirt.h").touch()
    with pytest.raises(InfiniCoreError) as caught:
        probe(tmp_path)
    text = str(caught.value)
    assert f"found   {tmp_path}/include/infinirt.h" in text
    lines = text.splitlines()
    assert lines[1] == f"  got:      missing {tmp_path}/include/infinicore.h"
    assert lines[2] == f"            found   {tmp_path}/include/infinirt.h"
    for name in ("include/infiniop.h", "lib/libinfiniop.so", "lib/lib/libinfinirt.so"):
        assert f"missing {tmp_path}/{name}" in text
    assert "qwen3-codegen infinicore install" in text


def test_the_default_root_is_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN3_CODEGEN_CACHE", str(tmp_path))
    assert default_root() == tmp_path / "infinicore" / "0.1.0"
    monkeypatch.delenv("QWEN3_CODEGEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root("1") == tmp_path / "qwen3-codegen" / "infinicore" / "1"
