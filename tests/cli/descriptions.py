"""A tiny Qwen3 with windows, as a model spec and an architecture file side by side."""

from __future__ import annotations

from pathlib import Path

from qwen3_codegen.paths import modelspecs_dir

MODEL = """\
name: tiny
architecture: ./small.yaml
config:
  vocab_size: 97
  hidden_size: 24
  intermediate_size: 40
  num_hidden_layers: 3
  num_attention_heads: 4
  num_key_value_heads: 2
  head_dim: 8
  max_position_embeddings: 128
  rms_norm_eps: 0.01
  rope_theta: 100.0
  use_sliding_window: true
  sliding_window: 4
  layer_types: [sliding_attention, full_attention, sliding_attention]
  torch_dtype: float32
"""


def write_tiny_model(folder: Path) -> Path:
    """Writes ``tiny.yaml`` and ``small.yaml`` (Qwen3 itself) and returns the first."""
    folder.mkdir(parents=True, exist_ok=True)
    shipped = modelspecs_dir() / "architectures" / "qwen3.yaml"
    (folder / "small.yaml").write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "tiny.yaml").write_text(MODEL, encoding="utf-8")
    return folder / "tiny.yaml"


def spoil(file: Path, old: str, new: str) -> int:
    """Replaces a text that is there once, and returns its line."""
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file.name}"
    file.write_text(text.replace(old, new), encoding="utf-8")
    return text[: text.index(old)].count("\n") + 1
