"""The op page, ``docs/ops.md``, from the op table.

``python -m qwen3_codegen.ir.ops.page > docs/ops.md`` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.ir.ops.definition import Lowering, OpDef

__all__ = ["render_page"]

_HEAD = """\
# Ops

<!-- Generated from the op table: python -m qwen3_codegen.ir.ops.page > docs/ops.md -->

Every op of the graph, as `codegen/qwen3_codegen/ir/ops/` defines it. The NumPy reference beside
each row is what the op means; the interpreter runs it, and emitted engines are compared with it.

`num_tokens` is the number of packed tokens of a step over all sequences, `num_logit_rows` the
number of rows whose logits are asked for, `rows` either of them. *activation* is what values
between ops are kept in: float32 or the model's dtype; inputs marked float32 stay so beside half
activations.

Lowerings name what carries an op out: operators of InfiniCore (portable), or classes of
`runtime/cpp/engine/native/ops.hpp` (native).

| op | results | per-sequence cache | portable lowering | native lowering |
|---|---|---|---|---|
"""


def render_page() -> str:
    """Returns the page as Markdown."""
    rows = "".join(f"{_overview(op)}\n" for op in OPS.values())
    return _HEAD + rows + "".join("\n" + "\n".join(_section(op)) + "\n" for op in OPS.values())


def _overview(op: OpDef) -> str:
    cached = "yes" if op.stateful else ""
    portable, native = (
        _lowering(op.lowerings[name], brief=True) for name in ("portable", "native")
    )
    result = _code(op.result)
    return f"| [{op.name}](#{op.name}) | {result} | {cached} | {portable} | {native} |"


def _section(op: OpDef) -> Iterator[str]:
    yield f"## {op.name}"
    yield ""
    yield op.doc
    yield ""
    yield "| input | shape | dtype | |"
    yield "|---|---|---|---|"
    for role in op.roles:
        name = f"{role.name}0, {role.name}1, ..." if role.variadic else role.name
        needed = "" if role.required else "optional"
        yield f"| {name} | {_code(role.shape)} | {role.element.value} | {needed} |"
    yield ""
    yield f"Result: {_code(op.result)}, activation."
    if op.attributes:
        yield ""
        yield "| attribute | type | |"
        yield "|---|---|---|"
        for attribute in op.attributes:
            bound = ", above zero" if attribute.positive else ""
            yield f"| {attribute.name} | {attribute.kind.value}{bound} | {attribute.doc} |"
    yield ""
    for number, (name, lowering) in enumerate(op.lowerings.items()):
        if number:
            yield ""
        yield f"{name.capitalize()} lowering: {_lowering(lowering, brief=False)}."


def _lowering(lowering: Lowering, *, brief: bool) -> str:
    if lowering.refusal is not None:
        return "no" if brief else f"none; {lowering.refusal}"
    return ", ".join(map(_code, lowering.operators)) or "copies and views"


def _code(text: str) -> str:
    return f"`{text}`" if not text.startswith("the ") and text != "any" else text


if __name__ == "__main__":
    print(render_page(), end="")
