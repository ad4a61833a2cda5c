"""Rope tables against transformers' own functions, bit for bit, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from qwen3_codegen.spec.float32_power import power
from qwen3_codegen.spec.model import RopeTable
from qwen3_codegen.spec.rope import ROPE_TYPES
from tests.spec.descriptions import ARCHITECTURE, CONFIG, error_of, line_of, model

VECTOR = 32
"""torch computes this many powers at once; what is left over goes through the C library."""
HEAD_DIMS = (64, 128, 192, 256, 96, 80, 30, 6, 2)
THETAS = (10000.0, 1000000, 500000.0, 431.7)

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="torch uses another power function on this CPU",
)


def frequencies(head_dim: int, theta: float, parameters: dict[str, Any], length: int) -> RopeTable:
    config = {
        **CONFIG,
        "head_dim": head_dim,
        "rope_theta": theta,
        "rope_scaling": parameters or None,
        "max_position_embeddings": length,
    }
    return model(config).rope["rope"]


def expected(
    head_dim: int, theta: float, parameters: dict[str, Any], length: int, seq_len: int | None = None
) -> tuple[np.ndarray, float]:
    config = LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        head_dim=head_dim,
        max_position_embeddings=length,
        rope_parameters={"rope_theta": theta, "rope_type": "default", **parameters},
    )
    if not parameters:
        inv_freq, factor = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    else:
        compute = ROPE_INIT_FUNCTIONS[parameters["rope_type"]]
        inv_freq, factor = compute(config, seq_len=seq_len)
    return inv_freq.numpy(), factor


def assert_same(actual: tuple[float, ...], wanted: np.ndarray) -> None:
    """Wants equal bits, and one unit of the power at most where torch leaves its vector code."""
    found = np.array(actual, dtype=np.float32)
    assert np.array_equal(found.astype(np.float64), np.array(actual))
    assert wanted.dtype == np.float32
    assert found.shape == wanted.shape
    whole = len(wanted) - len(wanted) % VECTOR
    assert np.array_equal(found[:whole].view(np.int32), wanted[:whole].view(np.int32))
    np.testing.assert_array_max_ulp(found[whole:], wanted[whole:], maxulp=2)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"rope_type": "linear", "factor": 2.7},
    "yarn": YARN,
    "yarn-one": {**YARN, "factor": 1},
    "yarn-attention-factor": {**YARN, "attention_factor": 0.9},
    "yarn-betas": {**YARN, "beta_fast": 5.0, "beta_slow": 0.6, "truncate": False},
    "yarn-equal-betas": {**YARN, "beta_fast": 2, "beta_slow": 2.0},
    "yarn-mscale": {**YARN, "mscale": 1.3, "mscale_all_dim": 0.6},
    "yarn-one-mscale": {**YARN, "mscale": 1.3},
    "yarn-whole": {"rope_type": "yarn", "factor": 8},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
    "llama3-odd": {
        "rope_type": "llama3",
        "factor": 5.3,
        "low_freq_factor": 1.5,
        "high_freq_factor": 7.1,
        "original_max_position_embeddings": 96,
    },
}


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_tables_have_the_bits_of_transformers(scaling: str, theta: float) -> None:
    for head_dim in HEAD_DIMS:
        table = frequencies(head_dim, theta, SCALINGS[scaling], 1024)
        inv_freq, factor = expected(head_dim, theta, SCALINGS[scaling], 1024)
        assert_same(table.inv_freq, inv_freq)
        assert table.attention_factor == factor
        assert (table.rotary_dim, table.long_inv_freq) == (head_dim, None)


def longrope(pairs: int, **more: Any) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.07 * pair for pair in range(pairs)],
        "long_factor": [1.3 + 0.31 * pair for pair in range(pairs)],
        "original_max_position_embeddings": 128,
        **more,
    }


@pytest.mark.parametrize("more", [{}, {"factor": 6.0}, {"factor": 1.0}, {"attention_factor": 1.2}])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_longrope_has_a_short_and_a_long_table(head_dim: int, more: dict[str, Any]) -> None:
    parameters = longrope(head_dim // 2, **more)
    table = frequencies(head_dim, 10000.0, parameters, 1024)
    short, factor = expected(head_dim, 10000.0, parameters, 1024)
    long, _ = expected(head_dim, 10000.0, parameters, 1024, seq_len=129)
    assert_same(table.inv_freq, short)
    assert table.long_inv_freq is not None
    assert_same(table.long_inv_freq, long)
    assert table.attention_factor == factor
    assert table.long_threshold == 128


@pytest.mark.parametrize("head_dim", [64, 128, 96])
def test_a_partial_rotation_has_fewer_pairs(head_dim: int) -> None:
    rule = ("{head_dim: head_dim}", "{head_dim: head_dim, partial_rotary_factor: 0.5}")
    table = model(CONFIG, rule, changes={"head_dim": head_dim}).rope["rope"]
    assert table.rotary_dim == head_dim // 2
    assert_same(table.inv_freq, expected(head_dim // 2, 10000.0, {}, 64)[0])
    given = {"head_dim": head_dim, "partial_rotary_factor": 0.25}
    assert model(CONFIG, rule, changes=given).rope["rope"].rotary_dim == head_dim // 4


def test_powers_have_the_bits_of_torch() -> None:
    for base in (10000.0, 1e6, 5e6, 10007.3, 2.5, 1.0):
        for count in (32, 64, 128, 4096):
            exponents = torch.arange(count, dtype=torch.float32) / count
            wanted = (base**exponents).numpy()
            assert np.array_equal(power(base, exponents.numpy()), wanted), (base, count)


def test_both_generations_and_names_say_the_same() -> None:
    old = model(changes={"rope_theta": 77.0, "rope_scaling": {"type": "linear", "factor": 3.0}})
    new = {"rope_type": "linear", "factor": 3.0, "rope_theta": 77.0}
    both = {**new, "type": "linear"}
    for changes in ({"rope_parameters": new}, {"rope_parameters": both, "rope_theta": 77.0}):
        assert model(changes=changes).rope == old.rope
    assert model(changes={"rope_scaling": None, "rope_parameters": {}}).rope == model().rope
    assert model(changes={"rope_parameters": {**new, "attention_factor": None}}).rope == old.rope


def faulty(**changes: Any) -> str:
    return error_of(model, changes=changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2}},
            "rope type 'dynamic' is not supported",
        ),
        ({"rope_scaling": {"type": "lineer", "factor": 2}}, "rope type 'lineer' is not supported"),
        ({"rope_scaling": {"type": 3}}, "'rope_type' must be text"),
        (
            {"rope_scaling": {"type": "linear", "rope_type": "yarn"}},
            "'rope_type' and 'type' contra",
        ),
        ({"rope_scaling": {"type": "linear"}}, "rope type 'linear' needs 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": None}}, "rope type 'linear' needs 'factor'"),
        (
            {"rope_scaling": {"type": "linear", "factr": 2}},
            "rope type 'linear' has no parameter 'fa",
        ),
        ({"rope_scaling": {"factor": 2}}, "rope type 'default' has no parameter 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "'factor' must be a number"),
        ({"rope_scaling": {"type": "linear", "factor": True}}, "'factor' must be a number"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "'factor' is out of range"),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, "'factor' is out of range"),
        ({"rope_scaling": {"type": "linear", "factor": float("nan")}}, "'factor' is out of range"),
        ({"rope_scaling": 3}, "'rope_scaling' must be a mapping"),
        ({"rope_parameters": []}, "'rope_parameters' must be a mapping"),
        ({"rope_theta": 0}, "'rope_theta' is out of range"),
        ({"rope_theta": "1e4"}, "'rope_theta' must be a number"),
        ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor' does not fit the architecture"),
        ({"rope_scaling": {**YARN, "truncate": 1}}, "'truncate' must be a boolean"),
        ({"rope_scaling": {**YARN, "beta_fast": -1}}, "'beta_fast' is out of range"),
        ({"rope_scaling": {**YARN, "beta_fast": 0}}, "'beta_fast' is out of range"),
        ({"rope_scaling": {**YARN, "beta_slow": 0}}, "'beta_slow' is out of range"),
        ({"rope_scaling": {**YARN, "beta_fast": 0.9}}, "'beta_fast' must be at least 'beta_slow'"),
        ({"rope_scaling": {**YARN, "beta_slow": 33}}, "'beta_fast' must be at least 'beta_slow'"),
        ({"rope_scaling": {**YARN, "attention_factor": 0}}, "'attention_factor' is out of range"),
        ({"rope_scaling": {**YARN, "factor": 0.5}}, "'factor' is out of range"),
        ({"rope_scaling": {"type": "linear", "factor": 0.9}}, "'factor' is out of range"),
        ({"rope_scaling": {**YARN, "original_max_position_embeddings": 1}}, "'original_max_positi"),
        ({"rope_theta": 1.0, "rope_scaling": YARN}, "yarn needs a 'rope_theta' above 1"),
        (
            {"rope_scaling": {**SCALINGS["llama3"], "high_freq_factor": 1.0}},
            "'high_freq_factor' mu",
        ),
        ({"rope_scaling": longrope(2)}, "'short_factor' has the wrong length"),
        ({"rope_scaling": longrope(3, long_factor=3)}, "'long_factor' must be a list"),
        ({"rope_scaling": longrope(3, long_factor=[1, 0, 1])}, "'long_factor' is out of range"),
    ],
)
def test_wrong_parameters_are_refused(changes: dict[str, Any], message: str) -> None:
    where = f"config.json:{len(CONFIG) + len(changes)}"
    assert faulty(**changes).startswith(f"{where}: {message}")


def test_scaling_needs_positions() -> None:
    message = faulty(rope_scaling={"type": "yarn", "factor": 2.0}, max_position_embeddings=1)
    assert message.startswith("config.json:6: rope type 'yarn' needs more than one position")


RULE_FLAWS = [
    ("head_dim: \"'x'\"", "'head_dim' of rope table 'rope' is no size"),
    ("head_dim: 7.9", "'head_dim' of rope table 'rope' is no size"),
    ("head_dim: '[1, 2]'", "'head_dim' of rope table 'rope' is no size"),
    ("head_dim: true", "'head_dim' of rope table 'rope' is no size"),
    ("head_dim: sliding_window", "rope table 'rope' needs a head_dim, and the config has none"),
    ("head_dim: head_dim, default_theta: -3", "'default_theta' of rope table 'rope' is out of r"),
    ("head_dim: head_dim, default_theta: 1e300", "'default_theta' of rope table 'rope' is out of"),
    ("head_dim: head_dim, partial_rotary_factor: -0.5", "'partial_rotary_factor' of rope table 'r"),
    *(
        (
            f"head_dim: head_dim, original_max_position_embeddings: {value}",
            "'original_max_position_embeddings' of rope table 'rope' is no size",
        )
        for value in ("-5", "1", "'[64]'", "0.5", "\"'x'\"")
    ),
]


@pytest.mark.parametrize(("rule", "message"), RULE_FLAWS, ids=[flaw[0] for flaw in RULE_FLAWS])
@pytest.mark.parametrize("scaling", ["default", "yarn", "llama3"])
def test_a_wrong_size_in_the_rope_section_is_refused(scaling: str, rule: str, message: str) -> None:
    change = ("rope: {head_dim: head_dim}", f"rope: {{{rule}}}")
    parameters = {
        key: value
        for key, value in SCALINGS[scaling].items()
        if key != "original_max_position_embeddings"
    }
    error = error_of(model, CONFIG, change, changes={"rope_scaling": parameters})
    assert error.startswith(f"tiny.yaml:{line_of(ARCHITECTURE, change[0])}: {message}")


def test_an_unknown_type_suggests_a_near_one() -> None:
    message = faulty(rope_scaling={"type": "lineer", "factor": 2})
    assert message.splitlines()[1:] == [
        f"  expected: {', '.join(ROPE_TYPES)}",
        "  hint:     did you mean 'linear'?",
    ]


def test_generations_that_contradict_each_other_are_refused() -> None:
    parameters = {"rope_type": "default", "rope_theta": 50.0}
    message = faulty(rope_parameters=parameters, rope_theta=70)
    assert "'rope_theta' and 'rope_parameters' contradict each other" in message
    assert "got:      70 and 50.0" in message
    scaling = {"type": "linear", "factor": 2.0}
    message = faulty(rope_parameters=parameters, rope_scaling=scaling)
    assert "'rope_scaling' and 'rope_parameters' contradict each other" in message


def test_an_architecture_may_allow_fewer_types() -> None:
    rule = (
        "{head_dim: head_dim}",
        "{head_dim: head_dim, types: [default], aliases: {su: default}}",
    )
    assert model(CONFIG, rule, changes={"rope_scaling": {"type": "su"}}).rope == model().rope
    message = error_of(model, CONFIG, rule, changes={"rope_scaling": YARN})
    assert "rope type 'yarn' is not supported\n  expected: default" in message


def test_interleaving_changes_only_the_pairs() -> None:
    rule = ("{head_dim: head_dim}", "{head_dim: head_dim, interleaved: true}")
    table = model(CONFIG, rule).rope["rope"]
    assert table.interleaved
    assert dataclasses.replace(table, interleaved=False) == model().rope["rope"]
