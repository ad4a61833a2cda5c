"""The wheel holds both packages, what the compiler needs beside them, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from tests.project.source_tree import ROOT

SHARED = {"templates": "templates", "modelspecs": "modelspecs", "runtime/cpp": "cpp"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(out), str(ROOT)], check=True, timeout=120)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_nothing_generic_lands_in_site_packages(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "qwen3_codegen",
        "qwen3_runtime",
    }
    assert not [name for name in wheel.namelist() if name.endswith((".so", ".pyc"))]


def test_packages_are_whole(wheel):
    names = set(wheel.namelist())
    for folder in ("codegen/qwen3_codegen", "runtime/qwen3_runtime"):
        for path in source_files(ROOT / folder):
            assert path.relative_to((ROOT / folder).parent).as_posix() in names


@pytest.mark.parametrize("folder", SHARED)
def test_shared_files_travel_with_the_compiler(wheel, folder):
    names = set(wheel.namelist())
    paths = source_files(ROOT / folder)
    assert paths
    for path in paths:
        inside = path.relative_to(ROOT / folder).as_posix()
        assert f"qwen3_codegen/_share/{SHARED[folder]}/{inside}" in names


def test_metadata_names_command_and_licence(wheel):
    (folder,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    commands = wheel.read(f"{folder}/entry_points.txt").decode()
    assert "qwen3-codegen = qwen3_codegen.cli.main:main" in commands
    metadata = message_from_string(wheel.read(f"{folder}/METADATA").decode())
    assert metadata["Name"] == "qwen3-codegen"
    assert metadata["License-Expression"] == "MIT"
    needed = metadata.get_all("Requires-Dist")
    assert not [line for line in needed if line.startswith("torch") and "extra ==" not in line]


def source_files(folder: Path) -> list[Path]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if "__pycache__" not in path.parts and path.suffix != ".so"]
