"""Who mistakes a model's size is shown the nearest one there is."""

from __future__ import annotations

import pytest

from qwen3_codegen.errors import SpecError
from qwen3_codegen.spec.catalog import load_model, model_names
from qwen3_codegen.spec.near_names import nearest_model, nearest_name

NAMES = ["llama-8b", "minicpm-2b-sft", "qwen3-0.6b", "qwen3-1.7b", "qwen3-14b", "qwen3-30b-a3b",
         "qwen3-32b", "qwen3-8b", "smollm2-135m"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("qwen3-1.5b", "qwen3-1.7b"),
        ("Qwen3-1.5B-Instruct", "qwen3-1.7b"),
        ("qwen3-0.5b", "qwen3-0.6b"),
        ("qwen3-7b", "qwen3-8b"),
        ("qwen3-72b", "qwen3-32b"),
        ("qwen3-600m", "qwen3-0.6b"),
        ("qwen3-30b-instruct", "qwen3-30b-a3b"),
        ("qwen-8b", "qwen3-8b"),
        ("qwen3_8b", "qwen3-8b"),
        ("minicpm-1.2b-sft", "minicpm-2b-sft"),
        ("smollm2-360m", "smollm2-135m"),
        ("gpt-8b", None),
        ("qwen3-0b", "qwen3-0.6b"),
        ("zebra", None),
        ("smolm2", "smollm2-135m"),
    ],
)
def test_nearest_name(name, nearest):
    assert nearest_name(name, NAMES) == nearest


def test_ids_keep_the_writing_of_the_user():
    assert nearest_model("Qwen/Qwen3-1.5B", NAMES) == (
        "did you mean 'Qwen/Qwen3-1.7B'? Its spec here is qwen3-1.7b"
    )
    assert nearest_model("x/MiniCPM-2.4B-sft", NAMES) == (
        "the nearest model with a spec here is minicpm-2b-sft"
    )
    assert nearest_model("qwen3-1.5b", NAMES) == "did you mean 'qwen3-1.7b'?"
    assert nearest_model("Qwen/Qwen3-8B", NAMES) == "its spec here is qwen3-8b"
    assert nearest_model("somebody/zebra", NAMES) is None


def test_a_spec_that_is_not_there_names_the_nearest():
    for name in ("qwen3-1.5b", "Qwen3-1.5B"):
        with pytest.raises(SpecError) as refused:
            load_model(name)
        assert refused.value.hint == "did you mean 'qwen3-1.7b'?"


def test_every_shipped_name_is_nearest_to_itself():
    names = model_names()
    assert {name: nearest_name(name, names) for name in names} == {name: name for name in names}
