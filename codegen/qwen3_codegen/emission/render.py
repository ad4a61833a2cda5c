"""Views through templates to text; files are written only when they change, and atomically."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from qwen3_codegen.paths import templates_dir


def environment(directory: Path) -> jinja2.Environment:
    """Returns the Jinja environment of the emission stage; a missing name is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(directory),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C++ and TOML, not HTML; text enters through emission/cpp.py
    )


class Renderer:
    """Renders one view with one template."""

    def __init__(self) -> None:
        self._environment = environment(templates_dir())

    def render(self, template: str, view: Any) -> str:
        """Returns the text of ``template`` for a frozen view record."""
        fields = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
        return self._environment.get_template(template).render(fields).lstrip("\n")


def write_if_changed(path: Path, text: str) -> bool:
    """Writes a file through a sibling and a rename; keeps an equal one and its mtime.

    Returns:
        Whether the file was written.
    """
    content = text.encode()
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True


def write_files(directory: Path, files: Mapping[str, str]) -> list[str]:
    """Writes several files and returns the names of those that changed."""
    return [name for name, text in files.items() if write_if_changed(directory / name, text)]
