"""Statements to typed nodes, and what is wrong with statements for a given model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import SpecError
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.graph import Graph, Region
from qwen3_codegen.ir.printer import format_node
from qwen3_codegen.spec.catalog import architecture_names, load_architecture
from tests.ir.tiny import ATTENTION, MLP, rope_table, statements, tiny_graph, tiny_spec


def layer_of(graph: Graph) -> Region:
    (region,) = graph.layer_kinds
    return region


def nodes_of(lines: Sequence[str], **fields: Any) -> list[str]:
    """The nodes of a layer as text, types left out."""
    region = layer_of(tiny_graph(lines, **fields))
    return [format_node(region, node).split(" = ", 1)[1] for node in region.nodes]


def names_of(lines: Sequence[str], **fields: Any) -> list[str]:
    region = layer_of(tiny_graph(lines, **fields))
    return [value.name for node in region.nodes for value in node.outputs]


def test_a_decoder_layer() -> None:
    assert nodes_of((*ATTENTION, *MLP)) == [
        "rms_norm(x=%h, weight=@input_layernorm) {eps=0.07, offset=0.0}",
        "linear(x=%x, weight=@q_proj) {alpha=1.0}",
        "reshape(x=%q_proj_linear) {shape=[4, 6]}",
        "linear(x=%x, weight=@k_proj) {alpha=1.0}",
        "reshape(x=%k_proj_linear) {shape=[2, 6]}",
        "linear(x=%x, weight=@v_proj) {alpha=1.0}",
        "reshape(x=%v_proj_linear) {shape=[2, 6]}",
        "rope(x=%q) {table=rope}",
        "rope(x=%k) {table=rope}",
        "attention(q=%q_rope, k=%k_rope, v=%v) {scale=0.9, window=none, softcap=none}",
        "reshape(x=%a) {shape=[24]}",
        "linear(x=%a_reshape, weight=@o_proj) {alpha=1.0}",
        "add(a=%h, b=%o_proj_linear)",
        "rms_norm(x=%h_add, weight=@post_attention_layernorm) {eps=0.07, offset=0.0}",
        "linear(x=%x_rms_norm, weight=@gate_proj) {alpha=1.0}",
        "linear(x=%x_rms_norm, weight=@up_proj) {alpha=1.0}",
        "silu(x=%gate)",
        "mul(a=%silu, b=%up)",
        "linear(x=%mul, weight=@down_proj) {alpha=1.0}",
        "add(a=%h_add, b=%down_proj_linear)",
    ]


def test_the_model_around_the_layers() -> None:
    graph = tiny_graph(dtype=DType.BF16)
    assert [value.name for value in graph.prologue.parameters] == ["input_ids"]
    assert graph.prologue.results == ("h",)
    assert [node.op for node in graph.epilogue.nodes] == ["gather_rows", "linear"]
    assert graph.epilogue.nodes[0].output.name == "h_gather_rows"
    assert graph.epilogue.results == ("logits",)
    dtypes = {weight.name: weight.type.dtype for weight in layer_of(graph).weights}
    assert dtypes.pop("input_layernorm") is dtypes.pop("post_attention_layernorm") is DType.F32
    assert set(dtypes.values()) == {DType.BF16}
    assert (graph.vocab_size, graph.max_position_embeddings) == (37, 64)


def test_layers_of_equal_blocks_and_attributes_are_one_kind() -> None:
    windows = [{"window": None}, {"window": 3}, {"window": None}, {"window": 5}]
    graph = tiny_graph(attributes=windows, layer_types=["full", "near", "full", "near"])
    assert [kind.name for kind in graph.layer_kinds] == ["full", "near", "near_2"]
    assert graph.schedule == (0, 1, 0, 2)
    assert [kind.attributes for kind in graph.layer_kinds] == [windows[0], windows[1], windows[3]]
    found = [
        node.attributes["window"]
        for kind in graph.layer_kinds
        for node in kind.nodes
        if node.op == "attention"
    ]
    assert found == [None, 3, 5]


@pytest.mark.parametrize(
    ("types", "names"),
    [
        (["x", "x_2", "x"], ["x", "x_2", "x_3"]),
        (["x", "x", "x_2"], ["x", "x_3", "x_2"]),
        (["x", "x", "x_2", "x_2"], ["x", "x_3", "x_2", "x_2_2"]),
        (["epilogue", "prologue"], ["epilogue_2", "prologue_2"]),
    ],
)
def test_kinds_have_names_of_their_own(types: list[str], names: list[str]) -> None:
    windows = [{"window": index + 1} for index in range(len(types))]
    graph = tiny_graph(attributes=windows, layer_types=types)
    assert [kind.name for kind in graph.layer_kinds] == names


def test_weights_are_named_as_identifiers() -> None:
    paths = ["a._w", "b._w_", "_", "c.w__x", "layers[3]._1"]
    lines = [f"h = linear(h, weight={path}, out=hidden_size, bias=true)" for path in paths]
    names = [weight.name for weight in layer_of(tiny_graph(lines)).weights]
    assert names[::2] == ["w", "b_w", "weight", "w_x", "weight_1"]
    assert names[1::2] == ["w_bias", "b_w_bias", "weight_bias", "w_x_bias", "weight_1_bias"]


def test_layer_types_choose_blocks() -> None:
    spec = tiny_spec()
    blocks = {"attention": statements(ATTENTION, "a"), "mlp": statements(MLP, "m")}
    layers = tuple(
        replace(spec.layers[0], layer_type=name, blocks=chosen)
        for name, chosen in [("both", ("attention", "mlp")), ("none", ("mlp",))]
    )
    architecture = replace(spec.architecture, blocks=blocks)
    graph = build_graph(replace(spec, architecture=architecture, layers=layers))
    assert [len(kind.nodes) for kind in graph.layer_kinds] == [20, 7]


def test_conditions_leave_statements_out() -> None:
    lines = ("x = rms_norm(h, weight=norm)", "h = h + linear(x, weight=w, out=hidden_size)")
    extra = "x = x * 3"
    lines = (lines[0], extra, lines[1])
    scaled = {"layer.window == 3": True, "layer.window != 3 and hidden_size > 11": False}
    for condition, expected in scaled.items():
        graph = tiny_graph(lines, when={extra: condition}, attributes=({"window": 3},))
        assert any(node.op == "scale" for node in layer_of(graph).nodes) is expected


ARITHMETIC = [
    ("h = h * 2.5", ["scale(x=%h) {factor=2.5}"]),
    ("h = hidden_size * h", ["scale(x=%h) {factor=12.0}"]),
    ("h = h / sqrt(hidden_size + 4)", ["scale(x=%h) {factor=0.25}"]),
    ("h = h * layer.window", ["scale(x=%h) {factor=3.0}"]),
    ("h = h * (0.5 if layer.window == 3 else 2.0)", ["scale(x=%h) {factor=0.5}"]),
    (
        "h = (h + h) * 2 + h",
        ["add(a=%h, b=%h)", "scale(x=%add) {factor=2.0}", "add(a=%scale, b=%h)"],
    ),
    ("h = h * h", ["mul(a=%h, b=%h)"]),
    ("h = silu(h) * tanh(h)", ["silu(x=%h)", "tanh(x=%h)", "mul(a=%silu, b=%tanh)"]),
    ("h = gelu(h) if layer.window == 3 else silu(h)", ["gelu(x=%h)"]),
    ("h = h", []),
]


@pytest.mark.parametrize(("line", "expected"), ARITHMETIC)
def test_arithmetic(line: str, expected: list[str]) -> None:
    assert nodes_of((line,), attributes=({"window": 3},)) == expected


def test_a_factor_per_row_comes_second() -> None:
    gate = "g = sigmoid(linear(h, weight=gate, out=1))"
    for product in ("h = g * h", "h = h * g"):
        assert nodes_of((gate, product))[-1] == "mul(a=%h, b=%g)"


FUNCTIONS = [
    (
        ("h = rms_norm(h, weight=w, eps=1, offset=1)",),
        ["rms_norm(x=%h, weight=@w) {eps=1.0, offset=1.0}"],
    ),
    (
        ("h = layer_norm(h, weight=w, eps=0.5)",),
        ["layer_norm(x=%h, weight=@w, bias=@w_bias) {eps=0.5}"],
    ),
    (
        ("h = layer_norm(h, weight=w, eps=0.5, bias=false)",),
        ["layer_norm(x=%h, weight=@w) {eps=0.5}"],
    ),
    (("h = l2_norm(h)",), ["l2_norm(x=%h) {eps=1e-06}"]),
    (
        ("h = linear(h, weight=w, out=hidden_size, bias=layer.window == 3)",),
        ["linear(x=%h, weight=@w, bias=@w_bias) {alpha=1.0}"],
    ),
    (
        ("a, b = split(h, [5, 7])", "h = concat(b, a)"),
        ["split(x=%h) {sizes=[5, 7]}", "concat(x0=%b, x1=%a)"],
    ),
    (
        ("a, b, c = split(h, [5, 6, 1])", "h = concat(b, a, c)"),
        ["split(x=%h) {sizes=[5, 6, 1]}", "concat(x0=%b, x1=%a, x2=%c)"],
    ),
    (
        ("q = reshape(h, [2, 6])", "q, k = rope(q, q, table=none)", "h = reshape(q * k, 12)"),
        [
            "reshape(x=%h) {shape=[2, 6]}",
            "mul(a=%q, b=%q)",
            "reshape(x=%mul) {shape=[12]}",
        ],
    ),
    (
        (
            "q = rope(reshape(h, [2, 6]), table='rope')",
            "h = reshape(attention(q, q, q, scale=1 / 4, softcap=7, window=layer.window), 12)",
        ),
        [
            "reshape(x=%h) {shape=[2, 6]}",
            "rope(x=%reshape) {table=rope}",
            "attention(q=%q, k=%q, v=%q) {scale=0.25, window=3, softcap=7.0}",
            "reshape(x=%attention) {shape=[12]}",
        ],
    ),
    (
        (
            "h = moe(h, router=r, gate=g[expert], up=u[expert], down=d[expert], num_experts=3,"
            " top_k=2, intermediate=5, normalize=false, activation='gelu')",
        ),
        [
            "moe(x=%h, router=@r, gate=@g, up=@u, down=@d) "
            "{top_k=2, normalize=false, activation=gelu}"
        ],
    ),
    (
        ("h = causal_conv1d(h, weight=conv, kernel=4)",),
        ["causal_conv1d(x=%h, weight=@conv) {activation=silu}"],
    ),
    (
        (
            "q = reshape(h, [3, 4])",
            "a, b, c = split(h, [3, 3, 6])",
            "a = a * 2",
            "h = h * linear(c, weight=c, out=1)",
            "o = gated_delta_net(q, q, q, a, b, a_log=tensor(m.A_log), dt_bias=tensor(m.dt))",
            "h = h + reshape(o, [12])",
        ),
        None,
    ),
]


@pytest.mark.parametrize(("lines", "expected"), FUNCTIONS)
def test_functions(lines: Sequence[str], expected: list[str] | None) -> None:
    found = nodes_of(lines, attributes=({"window": 3},))
    if expected is None:
        assert (
            "gated_delta_net(q=%q, k=%q, v=%q, a=%a_scale, b=%b, a_log=@A_log, dt_bias=@dt) "
            "{scale=0.5}" in found
        )
    else:
        assert found == expected


def test_names_are_readable_and_unique() -> None:
    lines = (
        "x = rms_norm(h, weight=norm)",
        "x = x * 2",
        "x = x * 3",
        "x = x * 5",
        "norm = silu(silu(x))",
        "h = h + rms_norm(norm, weight=mlp.norm)",
    )
    assert names_of(lines) == [
        "x",
        "x_scale",
        "x_scale_2",
        "x_scale_3",
        "silu",
        "norm_silu",
        "mlp_norm_rms_norm",
        "h_add",
    ]
    weights = [weight.name for weight in layer_of(tiny_graph(lines)).weights]
    assert weights == ["norm", "mlp_norm"]


def test_a_weight_used_twice_is_one_weight() -> None:
    lines = (
        "x = linear(h, weight=w, out=hidden_size)",
        "h = linear(x, weight=w, out=hidden_size)",
    )
    assert [weight.name for weight in layer_of(tiny_graph(lines)).weights] == ["w"]


FAULTS: list[tuple[tuple[str, ...], str, int]] = [
    (("h = h + linaer(h, weight=w, out=3)",), "unknown op 'linaer'", 1),
    (("h = linear(hh, weight=w, out=12)",), "'hh' is not a value here", 1),
    (("h = linear(hidden_size, weight=w, out=12)",), "is not a value here", 1),
    (("h = h + hh",), "unknown name 'hh'", 1),
    (("h = h + 1",), "cannot be computed on these values", 1),
    (("h = 1 / h",), "cannot be computed on these values", 1),
    (("h = h / h",), "cannot be computed on these values", 1),
    (("h = h / 0",), "cannot be computed on these values", 1),
    (("h = h - h",), "cannot be computed on values", 1),
    (("h = -h",), "cannot be computed on values", 1),
    (("h = h // 2",), "cannot be computed on values", 1),
    (("h = 3",), "not a value but a number", 1),
    (("h = 'x' * h",), "neither a value nor a number", 1),
    (("a, b = silu(h)", "h = a * b"), "'silu' has the wrong number of targets", 1),
    (("a, b = h * h", "h = a * b"), "wrong number of targets", 1),
    (
        ("q = reshape(h, [2, 6])", "q, k = rope(q, table='rope')", "h = h"),
        "'rope': has the wrong number of targets",
        2,
    ),
    (("h = silu(split(h, [6, 6]))",), "gives one result per part", 1),
    (("a, b, c = split(h, [6, 6])", "h = a"), "gives one result per part", 1),
    (("h = silu(rope(h, h, table=none))",), "gives 2 results here", 1),
    (("a, b = split(h, [6, 5])", "h = a * b"), "'split': parts do not add up", 1),
    (("x = silu(h)", "h = linear(x, weight=w, out=13)"), "changes the shape of 'h'", 2),
    (("h = h + linear(h, weight=w, out=13)",), "'add': input 'b' has the wrong shape", 1),
    (("h = h * linear(h, weight=w, out=13)",), "'mul': factors do not fit each other", 1),
    (("h = linear(h, weight=w, out=0)",), "'out' is no whole number above zero", 1),
    (("h = linear(h, weight=w, out=[3, 4.0])",), "'out' is no whole number above zero", 1),
    (("h = linear(h, weight=w, out=[2, 2**31])",), "'linear': 'out' is too large", 1),
    (
        ("q = reshape(h, [2, 6])", "h = attention(q, q, q, scale=1, window=2**40)"),
        "'attention': 'window' is too large",
        2,
    ),
    (
        ("h = linear(h, weight=rows(w, 2**40, 12), out=12)",),
        "'2 \\*\\* 40' must be a whole number",
        1,
    ),
    (("h = linear(h, weight=w, out=true)",), "'out' is no whole number above zero", 1),
    (("h = linear(h, weight=w, out=12, bias=1)",), "'bias' is no boolean", 1),
    (("h = rms_norm(h, weight=w, eps='x')",), "'eps' is no number", 1),
    (("h = rms_norm(h, weight=w, eps=0)",), "attribute 'eps' is out of range", 1),
    (("h = rms_norm(h, weight=w, eps=1e-60)",), "'rms_norm': 'eps' is out of range", 1),
    (("h = rms_norm(h, weight=w, offset=1e39)",), "'rms_norm': 'offset' is out of range", 1),
    (
        ("q = reshape(h, [2, 6])", "h = attention(q, q, q, scale=1e-50)"),
        "'attention': 'scale' is out of range",
        2,
    ),
    (
        ("q = reshape(h, [2, 6])", "h = attention(q, q, q, scale=1e39)"),
        "'attention': 'scale' is out of range",
        2,
    ),
    (
        ("q = reshape(h, [2, 6])", "h = attention(q, q, q, scale=1, softcap=1e-46)"),
        "'attention': 'softcap' is out of range",
        2,
    ),
    (("h = h * 1e39",), "the factor of 'h \\* 1e\\+39' is out of range", 1),
    (("h = 1e-46 * h",), "the factor of '1e-46 \\* h' is out of range", 1),
    (("h = h / 1e46",), "the factor of 'h / 1e\\+46' is out of range", 1),
    (("q = reshape(h, [2, 7])", "h = h"), "cannot be reshaped", 1),
    (("q = reshape(h, [2, 6])", "h = attention(q, q, q, scale=1, window=0)"), "'window' is no", 2),
    (
        ("q = reshape(h, [2, 6])", "h = attention(q, q, q, scale=1, window='x')"),
        "'window' is no whole number above zero",
        2,
    ),
    (("q = reshape(h, [2, 6])", "q = rope(q, table='ropes')", "h = h"), "no rope table 'ropes'", 2),
    (("q = reshape(h, [2, 6])", "q = rope(q, table=7)", "h = h"), "'table' is no text", 2),
    (("q = reshape(h, [3, 4])", "q = rope(q, table='rope')", "h = h"), "rotates more than", 2),
    (("h = rope(h, table='rope')",), "'rope': input 'x' has the wrong number of dimensions", 1),
    (
        ("h = causal_conv1d(h, weight=w, kernel=4, activation='sliu')",),
        "unknown activation 'sliu'",
        1,
    ),
    (("x = silu(h)", "h = h + h"), "'x' is computed and never used", 1),
    (("x = silu(h)", "x = tanh(h)", "h = h + x"), "'x' is computed and never used", 1),
    (("h = embedding(h, weight=e, size=[4])",), "wrong size", 1),
    (("h = h * layer.widnow",), "widnow", 1),
    (("h = silu(h) if 1 else h",), "a condition is not a boolean", 1),
]


@pytest.mark.parametrize(("lines", "message", "line"), FAULTS)
def test_a_wrong_statement_is_named_with_its_line(
    lines: tuple[str, ...], message: str, line: int
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        tiny_graph(lines)
    assert caught.value.where == f"layer:{line}"


def test_a_part_of_a_split_may_go_unused() -> None:
    assert nodes_of(("a, b = split(h, [6, 6])", "h = concat(a, a)"))[0].startswith("split(")
    with pytest.raises(SpecError, match="'a' is computed and never used"):
        tiny_graph(("a, b = split(h, [6, 6])", "h = silu(h)"))


def test_shape_errors_say_both_shapes() -> None:
    with pytest.raises(SpecError) as caught:
        tiny_graph(("h = h + linear(h, weight=w, out=13)",))
    assert caught.value.got == "[num_tokens, 13]"
    assert caught.value.expected == "[num_tokens, 12]"


def test_near_names_are_suggested() -> None:
    for line, hint in [
        ("h = linaer(h, weight=w, out=3)", "did you mean 'linear'?"),
        ("x = silu(h)\nh = silu(xx) * x", None),
    ]:
        with pytest.raises(SpecError) as caught:
            tiny_graph(tuple(line.split("\n")))
        if hint is not None:
            assert caught.value.hint == hint
    with pytest.raises(SpecError) as caught:
        tiny_graph(("norm = silu(h)", "h = norm * silu(nrom)"))
    assert caught.value.hint == "did you mean 'norm'?"
    with pytest.raises(SpecError) as caught:
        tiny_graph(("q = rope(reshape(h, [2, 6]), table='ropo')", "h = h"))
    assert caught.value.hint == "did you mean 'rope'?"


OUTSIDE: list[tuple[dict[str, Any], str]] = [
    ({"prologue": ("x = silu(input_ids)",)}, "inputs differ in dtype"),
    ({"prologue": ("h = linear(input_ids, weight=w, out=3)",)}, "'input_ids' has no features"),
    (
        {"prologue": ("e = embedding(input_ids, weight=e, size=[vocab_size, 4])",)},
        "'h' is not defined",
    ),
    (
        {"prologue": ("h = reshape(embedding(input_ids, weight=e, size=[37, 4]), [2, 2])",)},
        "an 'h' of the wrong type",
    ),
    ({"epilogue": ("h = silu(h)",)}, "'logits' is not defined"),
    ({"epilogue": ("logits = linear(h, weight=w, out=38)",)}, "'logits' have the wrong shape"),
    (
        {"epilogue": ("logits = linear(h, weight=w, out=37) * layer.window",)},
        "unknown name 'layer'",
    ),
    (
        {"epilogue": ("q = reshape(h, [2, 6])", "a = attention(q, q, q, scale=1)", "logits = a")},
        "'logits' have the wrong shape",
    ),
]


@pytest.mark.parametrize(("fields", "message"), OUTSIDE)
def test_faults_outside_the_layers(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        tiny_graph(**fields)


@pytest.mark.parametrize("field", ["vocab_size", "max_position_embeddings"])
def test_sizes_every_model_needs(field: str) -> None:
    spec = tiny_spec()
    config = {name: value for name, value in spec.config.items() if name != field}
    with pytest.raises(SpecError, match=f"needs the config field '{field}'"):
        build_graph(replace(spec, config=config))


def test_eps_defaults_to_the_config_field() -> None:
    assert "eps=0.25" in nodes_of(("h = rms_norm(h, weight=w)",), rms_norm_eps=0.25)[0]


def test_a_rope_table_may_turn_a_part() -> None:
    graph = tiny_graph(rope=(rope_table(rotary_dim=4),))
    assert graph.rope_tables["rope"].rotary_dim == 4


def test_every_shipped_architecture_has_emitters() -> None:
    assert architecture_names()
    for name in architecture_names():
        load_architecture(name)


def test_graphs_are_equal_when_built_twice() -> None:
    assert tiny_graph() == tiny_graph()
    assert np.array_equal(tiny_graph().schedule, tiny_graph().schedule)
