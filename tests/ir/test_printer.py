"""The text and the drawing of a graph."""

from __future__ import annotations

import re

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.printer import format_graph, to_dot
from tests.ir.tiny import tiny_graph

LAYER = (
    "x = rms_norm(h, weight=norm)",
    "a, b = split(linear(x, weight=concat(p, r), out=8), [6, 2])",
    "q = rope(reshape(a, [1, 6]), table='rope')",
    "o = attention(q, q, q, scale=0.5, window=layer.window)",
    "h = h + linear(concat(reshape(o, [6]), b), weight=down, out=hidden_size, bias=true)",
)

EXPECTED = """\
graph tiny: bfloat16, vocab_size 37, max_position_embeddings 64
rope table rope: rotary_dim 6, half-split, attention_factor 1.0, \
inv_freq 1.0 .. 0.06432201713323593

prologue(%input_ids: int32[num_tokens])
  @embed: bfloat16[37, 12] = embed.weight
  %h: bfloat16[num_tokens, 12] = embedding(ids=%input_ids, weight=@embed)   # prologue:1
  return %h

layers 0-1, 3: decoder(%h: bfloat16[num_tokens, 12]) {window=none}
  @norm: float32[12] = layers.{layer}.norm.weight
  @p: bfloat16[8, 12] = concat(layers.{layer}.p.weight, layers.{layer}.r.weight, axis=0)
  @down: bfloat16[12, 8] = layers.{layer}.down.weight
  @down_bias: bfloat16[12] = layers.{layer}.down.bias
  %x: bfloat16[num_tokens, 12] = rms_norm(x=%h, weight=@norm) {eps=0.07, offset=0.0}   # layer:1
  %p_linear: bfloat16[num_tokens, 8] = linear(x=%x, weight=@p) {alpha=1.0}   # layer:2
  %a: bfloat16[num_tokens, 6], %b: bfloat16[num_tokens, 2] = split(x=%p_linear) \
{sizes=[6, 2]}   # layer:2
  %reshape: bfloat16[num_tokens, 1, 6] = reshape(x=%a) {shape=[1, 6]}   # layer:3
  %q: bfloat16[num_tokens, 1, 6] = rope(x=%reshape) {table=rope}   # layer:3
  %o: bfloat16[num_tokens, 1, 6] = attention(q=%q, k=%q, v=%q) \
{scale=0.5, window=none, softcap=none}   # layer:4
  %reshape_reshape: bfloat16[num_tokens, 6] = reshape(x=%o) {shape=[6]}   # layer:5
  %concat: bfloat16[num_tokens, 8] = concat(x0=%reshape_reshape, x1=%b)   # layer:5
  %down_linear: bfloat16[num_tokens, 12] = linear(x=%concat, weight=@down, bias=@down_bias) \
{alpha=1.0}   # layer:5
  %h_add: bfloat16[num_tokens, 12] = add(a=%h, b=%down_linear)   # layer:5
  return %h_add
"""


def test_a_graph_is_readable_text() -> None:
    windows = ({"window": None}, {"window": None}, {"window": 3}, {"window": None})
    graph = tiny_graph(LAYER, attributes=windows, dtype=DType.BF16)
    text = format_graph(graph)
    assert text.startswith(EXPECTED)
    assert "layers 2: decoder_2(%h: bfloat16[num_tokens, 12]) {window=3}" in text
    assert text.endswith("  return %logits\n")
    assert text == format_graph(graph)


def test_many_sources_are_shortened() -> None:
    moe = (
        "h = moe(h, router=r, gate=g[expert], up=u[expert], down=d[expert], num_experts=9,"
        " top_k=1, intermediate=3)"
    )
    text = format_graph(tiny_graph((moe,)))
    assert (
        "stack(layers.{layer}.g.0.weight, layers.{layer}.g.1.weight, ... 6 more ..., "
        "layers.{layer}.g.8.weight)"
    ) in text


def test_a_drawing_has_an_edge_per_use() -> None:
    graph = tiny_graph(LAYER)
    dot = to_dot(graph)
    nodes = [node for region in graph.regions() for node in region.nodes]
    assert dot.count(" -> ") == sum(len(node.inputs) for node in nodes)
    assert dot.count("subgraph cluster_") == 3
    assert '"decoder.p_linear" -> "decoder.a" [label="x"];' in dot
    assert '"decoder.a" -> "decoder.concat" [label="x1"];' in dot, "b is a result of a's node"
    declared = set(re.findall(r'^    ("[^"]+") \[', dot, re.MULTILINE))
    used = set(re.findall(r'("[^"]+") -> ', dot)) | set(re.findall(r'-> ("[^"]+")', dot))
    assert used <= declared
    assert dot.count("{") == dot.count("}")
