"""Which values are hidden states; ``tests/e2e/test_hidden_states.py`` compares their numbers."""

from __future__ import annotations

from qwen3_codegen.ir.hidden_states import hidden_state_names
from tests.ir.tiny import EPILOGUE, tiny_graph

LAYERS = ("layers.0.h", "layers.1.h", "layers.2.h")
ATTRIBUTES = ({"window": None}, {"window": 3}, {"window": None})


def names(*epilogue: str) -> tuple[str, ...]:
    return hidden_state_names(tiny_graph(attributes=ATTRIBUTES, epilogue=(*epilogue, *EPILOGUE)))


def test_what_every_layer_gets_and_the_last_norm():
    found = names("h = rms_norm(h, weight=norm)", "h = 0.5 * h")
    assert found == (*LAYERS, "epilogue.h_rms_norm")


def test_of_several_norms_the_last():
    norms = ("h = rms_norm(h, weight=first)", "h = rms_norm(h, weight=norm)")
    assert names(*norms)[-1] == "epilogue.h_rms_norm_2"


def test_without_a_norm_the_rows_as_the_last_layer_leaves_them():
    assert names() == (*LAYERS, "epilogue.h_gather_rows")
