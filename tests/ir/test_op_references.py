"""References of the op table against torch and transformers, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.ir.ops.step import RopeAngles, SequenceState, Step
from qwen3_runtime.errors import EngineError

Array = NDArray[Any]
ONE = Step(
    query_lens=(5,), seq_lens=(5,), logit_rows=np.array([0, 3]), rope={}, state_of=lambda _: {}
)


def rand(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def run(op: str, inputs: Mapping[str, Array], step: Step = ONE, **attributes: Any) -> Any:
    kept = {name: array.copy() for name, array in inputs.items()}
    result = OPS[op].reference(inputs, attributes, step)
    for name, array in inputs.items():
        np.testing.assert_array_equal(array, kept[name], err_msg=f"{op} writes to {name}")
    return result


def assert_equal(actual: Array, expected: torch.Tensor) -> None:
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-12, atol=1e-13)


def t(array: Array) -> torch.Tensor:
    return torch.from_numpy(array)


def test_embedding_equals_torch() -> None:
    ids, table = np.array([3, 0, 3], np.int32), rand(7, 4)
    assert_equal(run("embedding", {"ids": ids, "weight": table}), F.embedding(t(ids), t(table)))


def test_linear_equals_torch() -> None:
    x, weight, bias, residual = rand(5, 7), rand(3, 7), rand(3), rand(5, 3)
    plain = run("linear", {"x": x, "weight": weight}, alpha=1.0)
    assert_equal(plain, F.linear(t(x), t(weight)))
    inputs = {"x": x, "weight": weight, "bias": bias, "residual": residual}
    assert_equal(
        run("linear", inputs, alpha=0.3), 0.3 * F.linear(t(x), t(weight)) + t(bias) + t(residual)
    )


@pytest.mark.parametrize("shape", [(5, 8), (5, 3, 8)])
def test_norms_equal_torch(shape: tuple[int, ...]) -> None:
    x, weight, bias = rand(*shape), rand(8), rand(8, seed=1)
    rms = run("rms_norm", {"x": x, "weight": weight}, eps=0.3, offset=0.0)
    assert_equal(rms, F.rms_norm(t(x), (8,), t(weight), 0.3))
    offset = run("rms_norm", {"x": x, "weight": weight}, eps=0.3, offset=1.0)
    assert_equal(offset, F.rms_norm(t(x), (8,), t(weight) + 1, 0.3))
    layer = run("layer_norm", {"x": x, "weight": weight, "bias": bias}, eps=0.3)
    assert_equal(layer, F.layer_norm(t(x), (8,), t(weight), t(bias), 0.3))
    plain = run("layer_norm", {"x": x, "weight": weight}, eps=0.3)
    assert_equal(plain, F.layer_norm(t(x), (8,), t(weight), None, 0.3))


def test_l2_norm_equals_transformers() -> None:
    from transformers.models.qwen3_next.modeling_qwen3_next import l2norm

    x = rand(5, 3, 8)
    assert_equal(run("l2_norm", {"x": x}, eps=0.2), l2norm(t(x), eps=0.2))


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("silu", F.silu),
        ("gelu", F.gelu),
        ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
        ("relu", F.relu),
        ("relu2", lambda x: F.relu(x).square()),
        ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh),
    ],
)
def test_activations_equal_torch(op: str, function: Any) -> None:
    x = np.concatenate([rand(50) * 3, [0.0, -800.0, 800.0, 1e-3]])
    assert_equal(run(op, {"x": x}), function(t(x)))


def test_softplus_equals_the_exact_formula() -> None:
    x = np.array([-800.0, -3.0, 0.0, 19.0, 21.0, 800.0])
    expected = torch.logaddexp(t(x), torch.zeros(6, dtype=torch.float64))
    assert_equal(run("softplus", {"x": x}), expected)
    torch_softplus = F.softplus(t(x)).numpy()  # takes log(1 + exp(x)) for x above 20
    np.testing.assert_allclose(run("softplus", {"x": x}), torch_softplus, rtol=1e-9)


def test_elementwise_ops_equal_torch() -> None:
    a, b, gate = rand(5, 6), rand(5, 6, seed=1), rand(5, 1)
    assert_equal(run("add", {"a": a, "b": b}), t(a) + t(b))
    assert_equal(run("mul", {"a": a, "b": b}), t(a) * t(b))
    assert_equal(run("mul", {"a": a, "b": gate}), t(a) * t(gate))
    assert_equal(run("scale", {"x": a}, factor=-0.7), -0.7 * t(a))
    assert_equal(run("swiglu", {"gate": a, "up": b}), F.silu(t(a)) * t(b))


def test_shape_ops_equal_torch() -> None:
    x = rand(5, 12)
    assert_equal(run("reshape", {"x": x}, shape=(3, 4)), t(x).reshape(5, 3, 4))
    parts = run("split", {"x": x}, sizes=(2, 7, 3))
    for part, expected in zip(parts, torch.split(t(x), [2, 7, 3], -1), strict=True):
        assert_equal(part, expected)
    heads = rand(5, 3, 4)
    (first, second) = run("split", {"x": heads}, sizes=(1, 3))
    assert_equal(first, t(heads)[..., :1])
    assert_equal(second, t(heads)[..., 1:])
    joined = run("concat", {"x0": parts[0], "x1": parts[2], "x2": parts[1]})
    assert_equal(joined, torch.cat([t(parts[0]), t(parts[2]), t(parts[1])], -1))
    assert_equal(run("gather_rows", {"x": x}), t(x)[[0, 3]])


def rope_step(rotary_dim: int, *, interleaved: bool) -> tuple[Step, Array]:
    positions = np.array([0, 1, 2, 17, 5])
    angles = positions[:, None] * 37.0 ** -(np.arange(rotary_dim // 2) * 2 / rotary_dim)
    table = RopeAngles(
        cos=np.cos(angles), sin=np.sin(angles), rotary_dim=rotary_dim, interleaved=interleaved
    )
    step = Step(
        query_lens=(5,),
        seq_lens=(5,),
        logit_rows=np.array([0]),
        rope={"r": table},
        state_of=lambda _: {},
    )
    return step, angles


@pytest.mark.parametrize("rotary_dim", [8, 6])
def test_half_split_rope_equals_transformers(rotary_dim: int) -> None:
    from transformers.models.phi3.modeling_phi3 import apply_rotary_pos_emb

    step, angles = rope_step(rotary_dim, interleaved=False)
    x = rand(5, 3, 8)
    cos, sin = (t(np.concatenate([f(angles)] * 2, -1))[None] for f in (np.cos, np.sin))
    heads = t(x).transpose(0, 1)[None]
    expected, _ = apply_rotary_pos_emb(heads, heads, cos, sin)
    assert_equal(run("rope", {"x": x}, step, table="r"), expected[0].transpose(0, 1))


def test_interleaved_rope_is_a_complex_product() -> None:
    step, angles = rope_step(6, interleaved=True)
    x = rand(5, 3, 8)
    turned = torch.view_as_complex(t(x[..., :6].copy()).reshape(5, 3, 3, 2)) * torch.polar(
        torch.ones(5, 1, 3, dtype=torch.float64), t(angles)[:, None]
    )
    expected = torch.cat([torch.view_as_real(turned).reshape(5, 3, 6), t(x[..., 6:])], -1)
    assert_equal(run("rope", {"x": x}, step, table="r"), expected)


class Sequences:
    """State of one node over several steps."""

    def __init__(self) -> None:
        self.states: dict[int, SequenceState] = {}

    def step(self, *parts: tuple[int, int, int]) -> Step:
        """A step of (slot, new tokens, tokens before)."""
        slots = [slot for slot, _, _ in parts]
        return Step(
            query_lens=tuple(new for _, new, _ in parts),
            seq_lens=tuple(new + before for _, new, before in parts),
            logit_rows=np.array([0]),
            rope={},
            state_of=lambda index: self.states.setdefault(slots[index], {}),
        )


def torch_attention(
    q: Array, k: Array, v: Array, scale: float, window: int | None, softcap: float | None
) -> torch.Tensor:
    """Plain attention of one whole sequence, written the long way."""
    length, groups = len(q), q.shape[1] // k.shape[1]
    keys, values = (t(x).repeat_interleave(groups, 1).transpose(0, 1) for x in (k, v))
    scores = t(q).transpose(0, 1) @ keys.transpose(1, 2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    seen = torch.ones(length, length).tril().bool()
    if window is not None:
        seen &= torch.ones(length, length).triu(1 - window).bool()
    weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1)
    return (weights @ values).transpose(0, 1)


@pytest.mark.parametrize("kv_heads", [6, 3, 2, 1])
def test_attention_equals_scaled_dot_product_attention(kv_heads: int) -> None:
    q, k, v = rand(9, 6, 4) * 2, rand(9, kv_heads, 4) * 2, rand(9, kv_heads, 5, seed=1)
    step = Sequences().step((0, 9, 0))
    inputs = {"q": q, "k": k, "v": v}
    actual = run("attention", inputs, step, scale=0.7, window=None, softcap=None)
    expected = F.scaled_dot_product_attention(
        *(t(x).transpose(0, 1)[None] for x in (q, k, v)), is_causal=True, scale=0.7, enable_gqa=True
    )
    assert_equal(actual, expected[0].transpose(0, 1))


@pytest.mark.parametrize("window", [None, 1, 3, 8, 100])
@pytest.mark.parametrize("softcap", [None, 2.5])
def test_cached_attention_equals_the_whole_sequence(
    window: int | None, softcap: float | None
) -> None:
    lengths = (11, 7)
    data = [
        [rand(n, heads, 4, seed=seed) * 2 for seed, heads in ((1, 4), (2, 2), (3, 2))]
        for n in lengths
    ]
    expected = [torch_attention(q, k, v, 0.8, window, softcap) for q, k, v in data]
    sequences, done = Sequences(), [[], []]
    at = [0, 0]
    for parts in [(5, 1), (1, 4), (4, 1), (1, 1)]:
        inputs = {
            role: np.concatenate([data[s][i][at[s] : at[s] + n] for s, n in enumerate(parts)])
            for i, role in enumerate("qkv")
        }
        step = sequences.step(*((s, n, at[s]) for s, n in enumerate(parts)))
        out = run("attention", inputs, step, scale=0.8, window=window, softcap=softcap)
        for s, rows in enumerate(np.split(out, [parts[0]])):
            done[s].append(rows)
            at[s] += parts[s]
    for rows, whole in zip(done, expected, strict=True):
        assert_equal(np.concatenate(rows), whole)


def test_attention_refuses_a_gap() -> None:
    x = rand(2, 1, 4)
    with pytest.raises(EngineError, match="skips positions"):
        run(
            "attention",
            {"q": x, "k": x, "v": x},
            Sequences().step((0, 2, 3)),
            scale=1.0,
            window=None,
            softcap=None,
        )


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("activation", "torch_name"), [("silu", "silu"), ("relu", "relu")])
def test_moe_equals_transformers(normalize: bool, activation: str, torch_name: str) -> None:
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    config = Qwen3MoeConfig(
        hidden_size=6,
        moe_intermediate_size=4,
        num_experts=5,
        num_experts_per_tok=2,
        norm_topk_prob=normalize,
        hidden_act=torch_name,
    )
    config._experts_implementation = "eager"
    block = Qwen3MoeSparseMoeBlock(config).double()
    inputs = {
        "x": rand(9, 6),
        "router": rand(5, 6),
        "gate": rand(5, 4, 6),
        "up": rand(5, 4, 6, seed=1),
        "down": rand(5, 6, 4),
    }
    with torch.no_grad():
        block.gate.weight.copy_(t(inputs["router"]))
        block.experts.gate_up_proj.copy_(t(np.concatenate([inputs["gate"], inputs["up"]], 1)))
        block.experts.down_proj.copy_(t(inputs["down"]))
        expected = block(t(inputs["x"])[None])
    expected = expected[0] if isinstance(expected, tuple) else expected
    actual = run("moe", inputs, top_k=2, normalize=normalize, activation=activation)
    # transformers takes the router's softmax in float32.
    np.testing.assert_allclose(actual, expected[0].numpy(), rtol=1e-5, atol=1e-6)


def test_causal_conv1d_equals_torch_in_steps() -> None:
    x, weight = rand(9, 3), rand(3, 4)
    padded = F.pad(t(x).T[None], (3, 0))
    expected = F.silu(F.conv1d(padded, t(weight)[:, None], groups=3))[0].T
    sequences, rows, at = Sequences(), [], 0
    for count in (1, 5, 2, 1):
        inputs = {"x": x[at : at + count], "weight": weight}
        step = sequences.step((4, count, at))
        rows.append(run("causal_conv1d", inputs, step, activation="silu"))
        at += count
    assert_equal(np.concatenate(rows), expected)


def test_gated_delta_net_equals_transformers_in_steps() -> None:
    from transformers.models.qwen3_next.modeling_qwen3_next import (
        torch_recurrent_gated_delta_rule,
    )

    q, k, v = rand(9, 2, 4), rand(9, 2, 4, seed=1), rand(9, 6, 3)
    a, b, a_log, dt_bias = rand(9, 6), rand(9, 6, seed=1), rand(6), rand(6, seed=1)
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    decay = -torch.exp(t(a_log)) * F.softplus(t(a) + t(dt_bias))
    expected, _ = torch_recurrent_gated_delta_rule(
        *(t(x).repeat_interleave(n, 1)[None] for x, n in ((q, 3), (k, 3), (v, 1))),
        g=decay[None],
        beta=torch.sigmoid(t(b))[None],
        initial_state=None,
        output_final_state=False,
    )
    sequences, rows, at = Sequences(), [], 0
    for count in (4, 1, 3, 1):
        part = slice(at, at + count)
        inputs = {"q": q[part], "k": k[part], "v": v[part], "a": a[part], "b": b[part]}
        inputs |= {"a_log": a_log, "dt_bias": dt_bias}
        step = sequences.step((0, count, at))
        rows.append(run("gated_delta_net", inputs, step, scale=4**-0.5))
        at += count
    # transformers' rule computes in float32 whatever it is given.
    np.testing.assert_allclose(np.concatenate(rows), expected[0].numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("op", ["causal_conv1d", "gated_delta_net"])
def test_recurrent_ops_refuse_another_position(op: str) -> None:
    sequences = Sequences()
    inputs: dict[str, Array] = {"x": rand(3, 2), "weight": rand(2, 4)}
    attributes: dict[str, Any] = {"activation": "silu"}
    if op == "gated_delta_net":
        inputs = {role: rand(3, 2, 4) for role in "qkv"} | {role: rand(3, 2) for role in "ab"}
        inputs |= {"a_log": rand(2), "dt_bias": rand(2)}
        attributes = {"scale": 1.0}
    run(op, inputs, sequences.step((0, 3, 0)), **attributes)
    with pytest.raises(EngineError, match="cannot be moved"):
        run(op, inputs, sequences.step((0, 3, 2)), **attributes)
    with pytest.raises(EngineError, match="cannot be moved"):
        run(op, inputs, sequences.step((1, 3, 3)), **attributes)
    first = run(op, inputs, sequences.step((1, 3, 0)), **attributes)
    again = run(op, inputs, sequences.step((0, 3, 0)), **attributes)
    np.testing.assert_array_equal(first, again)
