"""The tree keeps its shape: imports go one way, files stay short, nothing unfinished stays."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import source_tree
from tests.project.source_tree import CODEGEN, ROOT, RUNTIME, handwritten_files, python_files

STAGES = (
    {"errors", "distribution", "dtypes", "paths"},
    {"infinicore"},
    {"spec"},
    {"ir"},
    {"frontend"},
    {"passes"},
    {"plan"},
    {"emission"},
    {"build"},
)
"""Parts of the compiler; each may import its own set and those before it. What is not listed (the
driver, the Python face, the command line) stands after all of them, the command line last."""

LINE_LIMIT = 500
TEMPLATE_LINE_LIMIT = 200
LONG_FILES: dict[str, str] = {}
"""Files over the limit, with the reason; a table that reads better in one piece, for example."""

BANNED_NAMES = re.compile(r"^(utils?|helpers?|misc|common|tmp|data|cfg)$")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|raise NotImplementedError)\b")
PERSONAL_PATH = re.compile(r"(?<![\w.])/(home|work|Users)/\w")


def stage_of(module: str) -> int:
    part = module.split(".")[1] if "." in module else ""
    if part in ("cli", "__main__"):
        return len(STAGES) + 1
    return next((rank for rank, parts in enumerate(STAGES) if part in parts), len(STAGES))


def backward_imports(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        own = source_tree.module_name(path)
        for module, line, _ in source_tree.imports(path):
            if not module.startswith("qwen3_codegen."):
                continue
            if stage_of(module) > stage_of(own):
                yield f"{path.name}:{line}: {own} imports {module}"


def test_imports_go_one_way():
    assert list(backward_imports(python_files(CODEGEN))) == []


def test_a_backward_import_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(source_tree, "CODEGEN", tmp_path / "qwen3_codegen")
    path = tmp_path / "qwen3_codegen" / "spec" / "early.py"
    path.parent.mkdir(parents=True)
    source = """
        from qwen3_codegen.errors import SpecError

        def late():
            from ..plan import records
        """
    path.write_text(textwrap.dedent(source))
    assert list(backward_imports([path])) == [
        "early.py:5: qwen3_codegen.spec.early imports qwen3_codegen.plan.records"
    ]


def test_runtime_never_imports_the_compiler():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in python_files(RUNTIME)
        for module, line, _ in source_tree.imports(path)
        if module.split(".")[0] == "qwen3_codegen"
    ]
    assert found == []


@pytest.mark.parametrize("heavy", ["torch", "transformers"])
def test_heavy_packages_are_imported_only_where_used(heavy):
    """They take seconds to import and are not on the way from a clone to an answer."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in python_files(CODEGEN, RUNTIME)
        for module, line, on_import in source_tree.imports(path)
        if on_import and module.split(".")[0] == heavy
    ]
    assert found == []


def test_packages_are_typed_and_complete():
    for package in (CODEGEN, RUNTIME):
        assert (package / "py.typed").is_file()
        folders = {path.parent for path in python_files(package)}
        assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def limit_of(path: Path) -> int:
    return TEMPLATE_LINE_LIMIT if path.suffix == ".jinja" else LINE_LIMIT


def test_files_are_short():
    long = {
        path.relative_to(ROOT).as_posix()
        for path in handwritten_files()
        if len(path.read_text(encoding="utf-8").splitlines()) > limit_of(path)
    }
    assert long == set(LONG_FILES), "split the file, or give it a reason in LONG_FILES"
    assert all(LONG_FILES.values())


def test_names_say_what_is_inside():
    banned = [
        path.relative_to(ROOT).as_posix()
        for path in handwritten_files()
        if any(BANNED_NAMES.match(Path(part).stem) for part in path.relative_to(ROOT).parts)
    ]
    assert banned == []


@pytest.mark.parametrize("pattern", [UNFINISHED, PERSONAL_PATH], ids=["unfinished", "paths"])
def test_nothing_is_left_behind(pattern):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in handwritten_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_ci_runs_the_command_of_the_readme():
    command = "make test"
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
