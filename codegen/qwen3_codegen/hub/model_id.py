"""Ids such as ``Qwen/Qwen3-0.6B`` and ``Qwen/Qwen3-0.6B@main``, told apart from paths."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

__all__ = ["ModelId", "is_commit", "model_id_of"]

_ID = re.compile(r"(?P<repository>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w][\w./-]*))?", re.ASCII)
_FILES = (".gguf", ".json", ".safetensors", ".yaml", ".yml")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class ModelId:
    """A model on the hub."""

    repository: str
    """``organisation/name``."""
    revision: str = "main"
    """Branch, tag or commit."""

    def __str__(self) -> str:
        return self.repository if self.revision == "main" else f"{self.repository}@{self.revision}"

    @property
    def name(self) -> str:
        """The part after the organisation."""
        return self.repository.partition("/")[2]

    @property
    def is_commit(self) -> bool:
        """Whether the revision can never come to mean something else."""
        return is_commit(self.revision)


def is_commit(revision: str) -> bool:
    """Returns whether a text is a whole commit hash."""
    return _COMMIT.fullmatch(revision) is not None


def model_id_of(text: str) -> ModelId | None:
    """Returns the hub id a text means, None where it is a path.

    What exists is a path; so is what ends like a file, starts with a dot or has not just one slash.
    """
    match = _ID.fullmatch(text)
    if match is None or ".." in text or text.lower().endswith(_FILES) or os.path.exists(text):
        return None
    return ModelId(match["repository"], match["revision"] or "main")
