"""WeightStore: every disagreement named before reading, every weight converted right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from qwen3_runtime.checkpoint import WeightBinding, WeightStore, open_checkpoint
from qwen3_runtime.checkpoint.base import Checkpoint
from qwen3_runtime.checkpoint.progress import progress_bar
from qwen3_runtime.checkpoint.transform import Concat, Expression, Rows, Scale, Tensor, Transpose
from qwen3_runtime.errors import CheckpointError

Tensors = dict[str, np.ndarray[Any, Any]]
LAYERS = 3


def make_tensors() -> Tensors:
    rng = np.random.default_rng(0)
    tensors: Tensors = {
        "model.embed_tokens.weight": rng.standard_normal((10, 4)).astype(ml_dtypes.bfloat16)
    }
    for layer in range(LAYERS):
        for name, rows in (("q_proj", 6), ("k_proj", 2)):
            tensors[f"model.layers.{layer}.self_attn.{name}.weight"] = rng.standard_normal(
                (rows, 4)
            ).astype(np.float32)
    return tensors


def checkpoint_of(folder: Path, tensors: Tensors) -> Checkpoint:
    (folder / "config.json").write_text(json.dumps({}))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return open_checkpoint(folder)


Q = "model.layers.{layer}.self_attn.q_proj.weight"
K = "model.layers.{layer}.self_attn.k_proj.weight"
EMBED = "model.embed_tokens.weight"


def binding(
    name: str,
    layer: int | None,
    shape: tuple[int, ...],
    expression: Expression,
    sources: dict[str, tuple[int, ...]],
    dtype: str = "float32",
) -> WeightBinding:
    return WeightBinding(
        name=name, layer=layer, shape=shape, dtype=dtype, expression=expression, sources=sources
    )


def make_bindings(dtype: str = "float32") -> list[WeightBinding]:
    fused = Concat((Tensor(Q), Tensor(K)))
    return [
        binding("embed_tokens", None, (10, 4), Tensor(EMBED), {EMBED: (10, 4)}, dtype),
        *(
            binding("qk_proj", layer, (8, 4), fused, {Q: (6, 4), K: (2, 4)}, dtype)
            for layer in range(LAYERS)
        ),
    ]


def test_a_fitting_checkpoint_passes_and_loads(tmp_path: Path) -> None:
    tensors = make_tensors()
    store = WeightStore(checkpoint_of(tmp_path, tensors), make_bindings())
    store.check()
    for layer in range(LAYERS):
        expected = np.vstack([tensors[name.replace("{layer}", str(layer))] for name in (Q, K)])
        np.testing.assert_array_equal(store.load("qk_proj", layer), expected)
    embed = store.load("embed_tokens")
    assert embed.dtype == np.float32
    np.testing.assert_array_equal(embed, tensors[EMBED].astype(np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_loaded_weights_are_contiguous_aligned_and_of_the_bound_dtype(
    tmp_path: Path, dtype: str
) -> None:
    expression = Transpose(Rows(Tensor(EMBED), 1, 3))
    store = WeightStore(
        checkpoint_of(tmp_path, make_tensors()),
        [binding("w", None, (4, 3), expression, {EMBED: (10, 4)}, dtype)],
    )
    array = store.load("w")
    assert array.dtype.name == dtype
    assert array.flags.c_contiguous
    assert array.flags.aligned


def test_float32_rounds_to_the_nearest_half_and_ties_to_even(tmp_path: Path) -> None:
    """bfloat16 keeps 7 fraction bits and float16 keeps 10; ties and near-ties at that place."""
    for dtype, bits in (("bfloat16", 7), ("float16", 10)):
        step = 2.0**-bits
        values = np.array([1 + step / 2, 1 + 3 * step / 2, -1 - step / 2], np.float32)
        nudged = np.nextafter(values, np.float32(9) * np.sign(values))
        weights = np.concatenate([values, nudged]).astype(np.float32)
        expected = [1, 1 + 2 * step, -1, 1 + step, 1 + 2 * step, -1 - step]
        folder = tmp_path / dtype
        folder.mkdir()
        store = WeightStore(
            checkpoint_of(folder, {"w": weights}),
            [binding("w", None, (6,), Tensor("w"), {"w": (6,)}, dtype)],
        )
        np.testing.assert_array_equal(store.load("w").astype(np.float64), expected)


def test_scaling_a_half_rounds_once(tmp_path: Path) -> None:
    weights = np.linspace(0.1, 3, 500).astype(ml_dtypes.bfloat16)
    store = WeightStore(
        checkpoint_of(tmp_path, {"w": weights}),
        [binding("w", None, (500,), Scale(Tensor("w"), 1.7), {"w": (500,)}, "bfloat16")],
    )
    expected = (weights.astype(np.float32) * np.float32(1.7)).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(store.load("w"), expected)


def test_overflow_to_infinity_is_an_error_and_a_stored_infinity_is_not(tmp_path: Path) -> None:
    large = np.array([1.0, -7e4], np.float32)
    infinite = np.array([1.0, -np.inf], np.float32)
    bindings = [
        binding(name, None, (2,), Tensor(name), {name: (2,)}, "float16") for name in ("v", "w")
    ]
    store = WeightStore(checkpoint_of(tmp_path, {"v": large, "w": infinite}), bindings)
    with pytest.raises(CheckpointError, match="too large for float16") as caught:
        store.load("v")
    assert caught.value.got == "70000"
    assert np.isinf(store.load("w")[1])


def test_progress_counts_up_to_the_engines_bytes(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    store = WeightStore(
        checkpoint_of(tmp_path, make_tensors()),
        make_bindings("bfloat16"),
        progress=lambda done, total, name: seen.append((done, total, name)),
    )
    store.load("embed_tokens")
    for layer in range(LAYERS):
        store.load("qk_proj", layer)
    assert [done for done, _, _ in seen] == [80, 144, 208, 272]
    assert {total for _, total, _ in seen} == {272} == {store.total_bytes}
    assert seen[-1][2] == "qk_proj[layer 2]"


def test_progress_bar_keeps_standard_output_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as report:
        report(1, 2, "embed_tokens")
        report(2, 2, "[bold]odd[/name]")
    assert capsys.readouterr().out == ""


class CountingCheckpoint:
    """A real checkpoint that notes what is read and released."""

    def __init__(self, inner: Checkpoint) -> None:
        self.inner, self.log = inner, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def read(self, name: str) -> Any:
        self.log.append(f"read {name[-15:]}")
        return self.inner.read(name)

    def release(self, name: str) -> None:
        self.log.append(f"release {name[-15:]}")
        self.inner.release(name)


def test_pages_are_released_before_the_next_weight_and_arrays_stay_right(tmp_path: Path) -> None:
    tensors = make_tensors()
    counting = CountingCheckpoint(checkpoint_of(tmp_path, tensors))
    store = WeightStore(counting, make_bindings())
    store.check()
    assert counting.log == []
    first = store.load("qk_proj", 0)
    store.load("embed_tokens")
    store.release()
    assert counting.log == [
        "read q_proj.weight"[:4] + " " + Q[-15:],
        "read " + K[-15:],
        "release " + Q[-15:],
        "release " + K[-15:],
        "read " + EMBED[-15:],
        "release " + EMBED[-15:],
    ]
    np.testing.assert_array_equal(first[:6], tensors[Q.replace("{layer}", "0")])


# ---- disagreements --------------------------------------------------------------------------


def problems_of(
    folder: Path, tensors: Tensors, bindings: list[WeightBinding], **options: Any
) -> str:
    store = WeightStore(checkpoint_of(folder, tensors), bindings, **options)
    with pytest.raises(CheckpointError, match="does not fit the engine") as caught:
        store.check()
    return str(caught.value)


def test_missing_tensors_of_all_layers_are_one_line(tmp_path: Path) -> None:
    tensors = {name: array for name, array in make_tensors().items() if "k_proj" not in name}
    text = problems_of(tmp_path, tensors, make_bindings())
    assert "3 tensor(s) differ" in text
    assert (
        "model.layers.0.self_attn.k_proj.weight is missing, expected shape [2, 4] "
        "(and 2 more like it); nearest is model.layers.0.self_attn.q_proj.weight [6, 4]"
    ) in text


def test_mis_shaped_tensor_is_named_with_file_and_both_shapes(tmp_path: Path) -> None:
    tensors = make_tensors()
    tensors["model.layers.1.self_attn.k_proj.weight"] = np.zeros((4, 4), np.float32)
    text = problems_of(tmp_path, tensors, make_bindings())
    assert (
        "model.layers.1.self_attn.k_proj.weight has shape [4, 4], expected [2, 4], "
        "in model.safetensors"
    ) in text
    assert "1 tensor(s) differ" in text


def test_leftover_tensors_are_named_unless_ignored(tmp_path: Path) -> None:
    tensors = make_tensors() | {
        "lm_head.weight": np.zeros((10, 4), np.float32),
        "model.layers.0.self_attn.q_norm.weight": np.zeros(2, np.float32),
    }
    text = problems_of(tmp_path, tensors, make_bindings())
    assert "lm_head.weight [10, 4] is not used by the engine, in model.safetensors" in text
    assert "model.layers.0.self_attn.q_norm.weight [2] is not used" in text
    text = problems_of(tmp_path, tensors, make_bindings(), ignore=["lm_head.*"])
    assert "lm_head" not in text
    WeightStore(
        open_checkpoint(tmp_path), make_bindings(), ignore=["lm_head.*", "*.q_norm.weight"]
    ).check()


def test_all_kinds_of_problem_are_reported_at_once_and_bounded(tmp_path: Path) -> None:
    tensors = make_tensors() | {f"extra_{c}": np.zeros(1, np.float32) for c in "abcdefghijklmnop"}
    del tensors[EMBED]
    text = problems_of(tmp_path, tensors, make_bindings())
    assert "17 tensor(s) differ" in text
    assert "model.embed_tokens.weight is missing" in text
    assert "... and 5 kinds more" in text


def test_expression_that_gives_another_shape_is_the_engines_fault(tmp_path: Path) -> None:
    wrong = [
        *make_bindings(),
        binding("w", None, (9, 4), Tensor(EMBED), {EMBED: (10, 4)}),
        binding("v", None, (3,), Rows(Tensor(EMBED), 9, 3), {EMBED: (10, 4)}),
        binding("u", None, (10, 4), Tensor(EMBED), {}),
    ]
    text = problems_of(tmp_path, make_tensors(), wrong)
    assert "w would get shape [10, 4], expected [9, 4]" in text
    assert "v cannot be computed: rows beyond the source" in text
    assert "is read by u without an expected shape" in text


def test_loading_an_unbound_or_mis_shaped_weight_is_refused(tmp_path: Path) -> None:
    wrong = binding("w", None, (9, 4), Tensor(EMBED), {EMBED: (10, 4)})
    store = WeightStore(checkpoint_of(tmp_path, make_tensors()), [wrong])
    with pytest.raises(CheckpointError, match="does not bind"):
        store.load("qk_proj", 7)
    with pytest.raises(CheckpointError, match="wrong shape") as caught:
        store.load("w")
    assert caught.value.got == (10, 4)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    tensors: Tensors = {"w": np.arange(3)}
    store = WeightStore(
        checkpoint_of(tmp_path, tensors), [binding("w", None, (3,), Tensor("w"), {"w": (3,)})]
    )
    with pytest.raises(CheckpointError, match="holds no plain floats"):
        store.load("w")


def test_bindings_must_be_distinct_and_of_a_known_dtype(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, make_tensors())
    with pytest.raises(CheckpointError, match="bound twice"):
        WeightStore(checkpoint, make_bindings() * 2)
    with pytest.raises(CheckpointError, match="unknown weight dtype"):
        WeightStore(checkpoint, make_bindings("int4"))


def test_a_tied_head_may_be_stored_again(tmp_path: Path) -> None:
    """As in the published Qwen3 0.6B and 1.7B; one that differs belongs to another model."""
    tensors = make_tensors()
    tensors["lm_head.weight"] = tensors[EMBED].copy()
    WeightStore(checkpoint_of(tmp_path, tensors), make_bindings()).check()
    tensors["lm_head.weight"][-1, -1] *= 2
    text = problems_of(tmp_path, tensors, make_bindings())
    assert "lm_head.weight [10, 4] is not used by the engine" in text


def test_a_copy_of_another_type_is_left_over(tmp_path: Path) -> None:
    tensors = make_tensors()
    tensors["lm_head.weight"] = tensors[EMBED].astype(np.float32)
    assert "lm_head.weight" in problems_of(tmp_path, tensors, make_bindings())


def test_a_copy_of_a_layers_matrix_is_left_over(tmp_path: Path) -> None:
    """Equal numbers there say nothing: two matrices of a layer play different parts."""
    tensors = make_tensors()
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors["model.layers.0.self_attn.x_proj.weight"] = tensors[name].copy()
    assert "x_proj" in problems_of(tmp_path, tensors, make_bindings())
