"""Just enough Markdown to compare our documents with each other and with the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_HEADING = re.compile(r"^(#+) (.*)$")
_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_RULE = re.compile(r"^\|[-| ]+\|$")


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A fenced block."""

    language: str
    text: str


@dataclass(slots=True)
class Section:
    """A heading and what stands below it, up to the next heading."""

    level: int
    title: str
    blocks: list[CodeBlock] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    """Cells of its tables by row, headers left out."""
    num_bullets: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A file cut into sections."""

    path: Path
    sections: list[Section]
    prose: str
    """Everything outside fenced blocks."""

    @property
    def blocks(self) -> list[CodeBlock]:
        """All fenced blocks in order."""
        return [block for section in self.sections for block in section.blocks]

    @property
    def code_spans(self) -> list[str]:
        """All ``code`` of the prose."""
        return _CODE.findall(self.prose)

    @property
    def links(self) -> list[str]:
        """Targets of all links of the prose."""
        return _LINK.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """What ``#anchor`` may name, formed as GitHub forms it."""
        titles = (section.title.lower() for section in self.sections)
        return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def code_of(cell: str) -> list[str]:
    """Returns the ``code`` in a table cell."""
    return _CODE.findall(cell)


def read_document(path: Path) -> Document:
    """Reads a Markdown file."""
    sections = [Section(0, "")]
    prose: list[str] = []
    lines = iter(path.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith("```"):
            sections[-1].blocks.append(CodeBlock(line[3:], "\n".join(_until_fence(lines))))
            continue
        prose.append(line)
        if heading := _HEADING.match(line):
            sections.append(Section(len(heading[1]), heading[2]))
        _note(sections[-1], line)
    return Document(path, sections, "\n".join(prose))


def _until_fence(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith("```"):
            return
        yield line


def _note(section: Section, line: str) -> None:
    if line.startswith("- "):
        section.num_bullets += 1
    elif _RULE.match(line):
        section.rows.pop()  # the header above it
    elif line.startswith("|"):
        section.rows.append([cell.strip() for cell in line.strip("|").split("|")])
