from __future__ import annotations

import pytest

from qwen3_codegen.passes.fuse_rotary_attention import fuse_rotary_attention
from tests.ir.tiny import ATTENTION, rope_table, tiny_graph
from tests.passes.rewriting import nodes_of, ops_of, rewritten

PROJECTIONS, ROPE, (ATTEND, OUT) = ATTENTION[:4], ATTENTION[4], ATTENTION[5:]
NORMS = (
    "q = rms_norm(q, weight=attn.q_norm)",
    "k = rms_norm(k, weight=attn.k_norm)",
)


def graph(*between: str):
    tables = (rope_table(), rope_table("other", 4))
    return tiny_graph((*PROJECTIONS, *between, ATTEND, OUT), rope=tables)


def test_norms_and_rotation_go_in() -> None:
    (region,) = rewritten(fuse_rotary_attention, graph(*NORMS, ROPE)).layer_kinds
    assert [line for line in nodes_of(region) if "attention" in line] == [
        "%a = rotary_attention(q=%q, k=%k, v=%v, q_norm=@q_norm, k_norm=@k_norm) "
        "{scale=0.9, window=none, softcap=none, table=rope, eps=0.07}"
    ]
    assert not any("rope(" in line or "%q_rms" in line for line in nodes_of(region))


@pytest.mark.parametrize(
    ("between", "parts"),
    [
        ((*NORMS, ROPE), {"q_norm": 4, "k_norm": 5, "q_rope": 6, "k_rope": 6}),
        ((ROPE,), {"q_rope": 4, "k_rope": 4}),
    ],
)
def test_what_goes_in_keeps_its_line(between, parts) -> None:
    first = graph(*between).layer_kinds[0].nodes[0].location.line
    (region,) = rewritten(fuse_rotary_attention, graph(*between)).layer_kinds
    (node,) = [node for node in region.nodes if node.op == "rotary_attention"]
    assert {part: place.line - first for part, place in node.parts.items()} == parts
    assert node.location.line - first == 4 + len(between)


def test_rotation_alone_goes_in() -> None:
    (region,) = rewritten(fuse_rotary_attention, graph(ROPE)).layer_kinds
    assert [line for line in nodes_of(region) if "attention" in line] == [
        "%a = rotary_attention(q=%q, k=%k, v=%v) "
        "{scale=0.9, window=none, softcap=none, table=rope, eps=none}"
    ]


@pytest.mark.parametrize(
    "between",
    [
        (),
        ("q = rope(q, table='rope')",),
        (NORMS[0], ROPE),
        (
            "q = rms_norm(q, weight=attn.q_norm)",
            "k = rms_norm(k, weight=attn.k_norm, eps=0.3)",
            ROPE,
        ),
        (ROPE, "q = q * 2"),
        ("q = rope(q, table='rope')", "k = rope(k, table='other')"),
    ],
    ids=["no rope", "one rope", "one norm", "two eps", "scaled after", "two tables"],
)
def test_other_attentions_stay(between: tuple[str, ...]) -> None:
    before = graph(*between)
    assert rewritten(fuse_rotary_attention, before) == before


def test_what_is_read_elsewhere_stays() -> None:
    lines = (*PROJECTIONS, ROPE, ATTEND, "h = h + linear(a + q, weight=attn.o_proj, out=12)")
    before = tiny_graph(lines, rope=(rope_table(),))
    assert "attention" in ops_of(rewritten(fuse_rotary_attention, before))[1]
