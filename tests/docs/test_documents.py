"""What the documents name exists, what they show parses, and both READMEs say the same."""

from __future__ import annotations

import difflib
import re
import shlex
from itertools import zip_longest

import pytest

from qwen3_codegen.cli.main import _parser, main
from qwen3_codegen.dtypes import DType
from qwen3_codegen.model_size import model_size
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from tests.docs.markdown import code_of, read_document
from tests.project.source_tree import ROOT

PRINTED = ("ops.md", "spec-reference.md")
"""Pages that other tests compare with the tables they are printed from."""

ENGLISH = read_document(ROOT / "README.md")
CHINESE = read_document(ROOT / "README.zh-CN.md")
DOCUMENTS = [
    read_document(path)
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
    if path.name not in PRINTED
]

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.path.name)


# ---- both languages -------------------------------------------------------------------------


def test_sections_correspond():
    assert [s.level for s in ENGLISH.sections] == [s.level for s in CHINESE.sections]


def test_code_blocks_are_the_same():
    for english, chinese in zip_longest(ENGLISH.blocks, CHINESE.blocks):
        assert english == chinese


def test_tables_and_lists_correspond():
    for english, chinese in zip(ENGLISH.sections, CHINESE.sections, strict=True):
        keys = [[code_of(row[0]) for row in section.rows] for section in (english, chinese)]
        assert keys[0] == keys[1], english.title
        assert english.num_bullets == chinese.num_bullets, english.title


def test_marks_and_measurements_are_the_same():
    """Cells without words must agree: numbers, and the marks of what a change touches."""
    for english, chinese in zip(ENGLISH.sections, CHINESE.sections, strict=True):
        for left, right in zip(english.rows, chinese.rows, strict=True):
            for cell, other in zip(left[1:], right[1:], strict=True):
                if cell in ("", "●", "○") or re.match(r"^[\d.]+ ", cell):
                    assert re.findall(r"[\d.]+|[●○]", cell) == re.findall(r"[\d.]+|[●○]", other)


# ---- what is named exists -------------------------------------------------------------------

_TOP = ("codegen/", "runtime/", "templates/", "modelspecs/", "generated/", "tests/", "docs/")


def paths_named(document) -> set[str]:
    """Paths of this repository in the prose; NAME stands for any file."""
    spans = (word for span in document.code_spans for word in span.split())
    inside = {span.partition(":")[0] for span in spans if span.startswith(_TOP)}
    links = {link.partition("#")[0] for link in document.links if "://" not in link}
    base = document.path.parent.relative_to(ROOT)
    return inside | {(base / link).as_posix() for link in links if link}


@every_document
def test_paths_exist(document):
    missing = [p for p in paths_named(document) if not list(ROOT.glob(p.replace("NAME", "*")))]
    assert not missing


@every_document
def test_anchors_exist(document):
    for link in document.links:
        file, _, anchor = link.partition("#")
        if anchor and "://" not in link:
            target = read_document(document.path.parent / file) if file else document
            assert anchor in target.anchors, link


# ---- what is shown works --------------------------------------------------------------------


def shown_commands(document) -> list[str]:
    """Command lines in shell blocks and, where they are whole, in the prose."""
    lines = [
        line
        for block in document.blocks
        if block.language == "sh"
        for line in block.text.splitlines()
    ]
    spans = [span for span in document.code_spans if "…" not in span]
    return lines + [span for span in spans if span.startswith(("qwen3-codegen ", "make "))]


def check_command(line: str) -> None:
    program, *arguments = shlex.split(line)
    if program == "qwen3-codegen" and arguments[-1] != "--help":
        _parser(arguments[0]).parse_args(arguments)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(f"\n{target}:" in makefile for target in arguments)
    else:
        assert program in {"source", "sudo", "qwen3-codegen"}


@every_document
def test_commands_parse(document, capsys):
    failed = []
    for line in shown_commands(document):
        try:
            check_command(line)
        except SystemExit:
            failed.append((line, capsys.readouterr().err.splitlines()[-1]))
    assert not failed


def test_a_wrong_command_is_seen():
    with pytest.raises(SystemExit):
        check_command("qwen3-codegen build --spec qwen3-1.7b --device cpu")
    with pytest.raises(AssertionError):
        check_command("make demos")


def test_there_are_commands_to_check():
    assert len(shown_commands(ENGLISH)) > 20


def head_and_layer(name: str) -> tuple[list[str], list[str]]:
    """An architecture file above and inside its layer, without comments."""
    text = (ROOT / "modelspecs" / "architectures" / f"{name}.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    start, end = lines.index("layer:"), lines.index("epilogue:") - 1
    return lines[:start], lines[start:end]


def shown_difference(old: list[str], new: list[str], context: int) -> list[str]:
    lines = list(difflib.unified_diff(old, new, n=context, lineterm=""))[2:]
    return [line for line in lines if not line.startswith("@@")]


def test_the_worked_example_is_the_shipped_file():
    layer, head = (block.text.splitlines() for block in ENGLISH.blocks if block.language == "diff")
    (llama_head, llama_layer), (olmo2_head, olmo2_layer) = map(head_and_layer, ("llama", "olmo2"))
    assert head == shown_difference(llama_head, olmo2_head, context=0)
    assert layer == shown_difference(llama_layer, olmo2_layer, context=99)


def test_the_small_model_of_the_worked_example_has_a_graph(tmp_path, capsys):
    _, text = (block.text for block in ENGLISH.blocks if block.language == "yaml")
    modelspecs = ROOT / "modelspecs"
    spec = tmp_path / "small.yaml"
    spec.write_text(text.replace("modelspecs", str(modelspecs)), encoding="utf-8")
    assert main(["graph", "--spec", str(spec), "--after", "frontend"]) == 0
    assert capsys.readouterr().out.startswith("graph small: float32")


def test_one_file_name_is_one_kind_of_description():
    """Who follows two parts of a page would else give a device as the architecture."""
    kinds: dict[str, set[str]] = {}
    for document in DOCUMENTS:
        text = document.path.read_text(encoding="utf-8")
        for option, name in re.findall(
            r"(?:--)?\b(dev|arch|spec)[ =]\"?([a-z0-9_./-]+\.yaml)", text
        ):
            kinds.setdefault(name, set()).add(option)
    assert {name for name in kinds if name.startswith("my-")} == {
        "my-arch.yaml",
        "my-device.yaml",
        "my-model.yaml",
    }
    assert [name for name, options in kinds.items() if len(options) > 1] == []


def test_the_device_of_ones_own_loads(tmp_path):
    text, _ = (block.text for block in ENGLISH.blocks if block.language == "yaml")
    (tmp_path / "my-device.yaml").write_text(text, encoding="utf-8")
    device = load_device(str(tmp_path / "my-device.yaml"))
    assert (device.name, device.infinicore, device.dtypes) == ("mine", "cambricon", (DType.F16,))


def test_the_published_size_is_ours():
    parameters = f"{model_size(load_model('qwen3-1.7b')).num_parameters:,}".replace(",", " ")
    assert parameters == "1 720 574 976"
    assert parameters in ENGLISH.prose
    assert parameters in CHINESE.prose
