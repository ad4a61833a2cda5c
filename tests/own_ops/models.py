"""A tiny model whose layers call the ops of the folder ``ops`` beside this file."""

from __future__ import annotations

from pathlib import Path

from tests.cli.descriptions import spoil, write_tiny_model

OPS = Path(__file__).parent / "ops"

_LAST = "  - h = h + linear(silu(gate) * up, weight=mlp.down_proj, out=hidden_size)\n"
_MIXED = """\
  - m = linear(hard_swish(gate) * up, weight=mlp.down_proj, out=hidden_size)
  - g = linear(x, weight=mlp.mix_gate, out=4)
  - m, s = gated_mix(m, g, gain=mlp.mix_gain, floor=mlp.mix_floor, sharpness=1.5, shift=-3,
      inverted=layer.window == none)
  - h = h + m + linear(s, weight=mlp.mix_out, out=hidden_size)
"""


def write_own_model(folder: Path) -> Path:
    """Writes ``tiny.yaml`` and its architecture and returns the first."""
    spec = write_tiny_model(folder)
    spoil(folder / "small.yaml", _LAST, _MIXED)
    return spec
