"""What the checks of this folder look at: our own sources, as paths and as imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODEGEN = ROOT / "codegen" / "qwen3_codegen"
RUNTIME = ROOT / "runtime" / "qwen3_runtime"


def python_files(*folders: Path) -> list[Path]:
    """Returns the Python files under some folders, in order."""
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def handwritten_files() -> list[Path]:
    """Returns sources, templates and tests that people read, generated ones left out."""
    folders = ("codegen", "runtime", "templates", "tests")
    kinds = {".py", ".pyi", ".cpp", ".hpp", ".jinja", ".html", ".css", ".js"}
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return sorted(path for path in paths if path.suffix in kinds and path.is_file())


def module_name(path: Path) -> str:
    """Returns the dotted name of a file of one of the two packages."""
    package_root = CODEGEN if path.is_relative_to(CODEGEN) else RUNTIME
    parts = path.relative_to(package_root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Yields (module, line, whether it runs on import of the file) of every import."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")), path, on_import=True)


def _imports(node: ast.AST, path: Path, *, on_import: bool) -> Iterator[tuple[str, int, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno, on_import) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(child, path)
            yield from ((f"{base}.{alias.name}", child.lineno, on_import) for alias in child.names)
        else:
            deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, path, on_import=on_import and not deferred)


def _absolute(node: ast.ImportFrom, path: Path) -> str:
    if node.level == 0:
        return node.module or ""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])
