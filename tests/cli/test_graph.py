"""``graph``: pictures, lowerings and differences."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from tests.cli.descriptions import spoil


def test_svg(cli):
    text = cli("graph", "--spec", "qwen3-1.7b", "--format", "svg").succeeded()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    before = cli("graph", "--spec", "qwen3-1.7b", "--format", "svg", "--after", "frontend")
    assert ">silu<" in before.succeeded()
    assert ">silu<" not in text


def test_passes_of_a_lowering(cli):
    native = cli("graph", "--spec", "qwen3-1.7b", "--lowering", "native").succeeded()
    assert native != cli("graph", "--spec", "qwen3-1.7b").succeeded()
    error = cli("graph", "--spec", "qwen3-1.7b", "--lowering", "nativ").refused()
    assert "portable" in error
    text = cli("graph", "--help").succeeded()
    assert text.index("native lowering") < text.index("fuse_rotary_attention")
    assert text.index("portable lowering") < text.index("fuse_qkv")


def test_no_difference(cli, model, tmp_path):
    """Neither the name of a model nor the place of its files is a difference."""
    result = cli("graph", "--spec", "qwen3-1.7b", "--diff", "qwen3-1.7b")
    assert result.succeeded() == ""
    assert result.stderr == "no difference\n"
    other = Path(tmp_path / "other")
    other.mkdir()
    for file in model.parent.iterdir():
        (other / file.name).write_text("# A comment.\n" + file.read_text(encoding="utf-8"))
    spoil(other / "tiny.yaml", "name: tiny", "name: renamed")
    assert cli("graph", "--spec", model, "--diff", other / "tiny.yaml").succeeded() == ""


def test_a_difference(cli, model, tmp_path):
    changed = tmp_path / "changed.yaml"
    text = model.read_text(encoding="utf-8").replace(
        "./small.yaml", str(model.parent / "small.yaml")
    )
    changed.write_text(text.replace("rms_norm_eps: 0.01", "rms_norm_eps: 0.02"), encoding="utf-8")
    result = cli("graph", "--spec", model, "--diff", changed)
    assert result.code == 1
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[:2] == [f"--- {changed}", f"+++ {model}"]
    removed = [line for line in lines[2:] if line.startswith("-")]
    added = [line for line in lines[2:] if line.startswith("+")]
    assert len(removed) == len(added) > 0
    assert all("eps=0.02" in line for line in removed)
    assert all("eps=0.01" in line for line in added)


def test_what_a_setting_changes(cli, model):
    """--set alters --spec alone, so a spec can be compared with itself."""
    result = cli("graph", "--spec", model, "--set", "sliding_window=5", "--diff", model)
    assert result.code == 1
    old, new, *lines = result.stdout.splitlines()
    assert (old, new) == (f"--- {model}", f"+++ {model} --set sliding_window=5")
    changed = [line for line in lines if "window=5" in line]
    assert changed
    assert all(line.startswith("+") for line in changed)


def test_differences_after_a_pass(cli, model):
    ask = ["graph", "--spec", model, "--set", "rms_norm_eps=0.02", "--diff", model, "--after"]
    assert "rms_norm" in cli(*ask, "frontend").stdout
    assert cli(*ask, "frontend").stdout != cli(*ask, "fuse_qkv").stdout


def test_what_cannot_be_compared(cli):
    ask = ["graph", "--spec", "qwen3-1.7b", "--diff"]
    assert "did you mean 'qwen3-1.7b'" in cli(*ask, "qwen3-1.5b").refused()
    assert "--format svg" in cli(*ask, "qwen3-0.6b", "--format", "svg").refused()
    assert "did you mean 'qwen3-1.7b'" in cli("graph", "--spec", "qwen3-1.5b").refused()
