"""The spec reference, ``docs/spec-reference.md``, from the schema and the tables.

``python -m qwen3_codegen.spec.reference_page > docs/spec-reference.md`` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from qwen3_codegen.paths import modelspecs_dir
from qwen3_codegen.spec import schema
from qwen3_codegen.spec.catalog import architecture_names, load_architecture, shipped_models
from qwen3_codegen.spec.chat import REASONING_FORMATS, SAMPLING_DEFAULTS, TOOL_FORMATS
from qwen3_codegen.spec.config_rules import FIELD_TYPES
from qwen3_codegen.spec.evaluation import NUMBER_FUNCTIONS
from qwen3_codegen.spec.functions import FUNCTIONS, REQUIRED, WEIGHT_FORMS, Function, Parameter
from qwen3_codegen.spec.rope import ROPE_KEYS

__all__ = ["render_page"]

_HEAD = """\
# Spec reference

<!-- Generated: python -m qwen3_codegen.spec.reference_page > docs/spec-reference.md -->

Three kinds of YAML files describe an engine: a *model spec* holds sizes, an *architecture* file
holds the layer graph, a *device* file says where it runs. All are plain YAML 1.2: mappings, lists,
scalars. Unknown and duplicate keys are errors; tags, anchors and aliases do not exist here.
`1e-6` is a number, `on` and `yes` are texts.
"""

_CONFIG_JSON = """\
## config.json

A checkpoint needs no model spec: its config.json is read by the rules of the architecture that
lists its `model_type` (`--arch NAME` chooses another). Each field is *consumed*, *must equal* a
value, or is *inert*; any other field is an error that names it, unless `--ignore-config-key FIELD`
vouches for it. `--set FIELD=VALUE` overrides a field under any of its names, wherever the file has
it; lists and mappings are written as JSON.

- Both generations are read: `rope_theta`, `rope_scaling`, `torch_dtype`, and `rope_parameters`,
  `dtype`. Where both say something, they must agree.
- Windows follow transformers. Without `use_sliding_window: true` a `sliding_window` has no effect
  in Qwen2 and Qwen3, which is said; without `layer_types`, layers from `max_window_layers` on
  slide.
- Without a `rope_theta` the architecture's default is used, which is said. A rope `factor` is at
  least 1, and `beta_fast` at least `beta_slow`.
- A list with an entry per layer must have as many entries as there are layers.
"""

_EXPRESSIONS = """\
## Expressions

Expressions look like Python and are never run as Python. They hold numbers, texts in quotes,
`true`, `false`, `none`, names, `x[i]`, `[a, b]`, `+ - * / // % **`, `== != < <= > >= in`, `not in`,
`and`, `or`, `not`, and `a if test else b`. A condition must be `true` or `false`: there is no
truth in numbers.

Names are config fields, consumed or derived. Expressions about layers may also use `layer`, the
layer's index, and the names of rope tables; statements may use `layer.ATTRIBUTE`; derived fields
may use `dtype`, the engine's dtype as text.

| function | |
|---|---|
"""

_STATEMENTS = """\
## Statements

A statement assigns the result of a function or of arithmetic to one or more names:

    - q, k = rope(q, k, table=layer.rope)
    - h = h + linear(a, weight=self_attn.o_proj, out=hidden_size)

Values may be added and multiplied with each other, and multiplied or divided by a number; `a - b`
is `a + -1 * b`. Numbers are kept in float32. Names hold letters, digits and single `_` between
them, must be defined above their use, and may be assigned again. A statement may be under a
condition over config fields and layer attributes:

"""

_ROPE = """\
### rope

Each entry is a table of rotary frequencies; its name is what `table=` takes. Frequencies are
computed in float32 in transformers' order of operations.

"""

_LONGROPE = """\
`longrope` has two tables. An engine takes the long one when it is loaded with a `max_model_len`
above `original_max_position_embeddings`, else the short one, for all positions. `dynamic` is
refused: its frequencies change with the length of each sequence.
"""


def render_page() -> str:
    """Returns the page as Markdown."""
    parts = [_HEAD, *_model_part(), _CONFIG_JSON, *_architecture_part(), *_device_part()]
    return "\n".join(parts)


def _table(head: str, rows: Iterable[Iterable[str]]) -> str:
    columns = head.count("|") - 1
    lines = [head, "|" + "---|" * columns]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _keys(keys: schema.Schema) -> str:
    rows = (
        (f"`{name}`", key.type, "yes" if key.required else "", key.doc)
        for name, key in keys.items()
    )
    return _table("| key | holds | required | |", rows)


def _named(head: str, texts: Mapping[str, str]) -> str:
    return _table(head, ((f"`{name}`", text) for name, text in texts.items()))


def _model_part() -> Iterator[str]:
    yield "## Model specs\n"
    yield _keys(schema.MODEL)
    yield "Shipped:\n"
    yield _table(
        "| name | architecture | |",
        (
            (f"`{model.name}`", f"`{model.architecture}`", model.description)
            for model in shipped_models()
        ),
    )
    yield "### chat\n"
    yield _keys(schema.CHAT)
    yield _named("| tool_format | |", TOOL_FORMATS)
    yield _named("| reasoning_format | |", REASONING_FORMATS)
    bounds = {name: f"{low} to {high}" for name, (low, high) in SAMPLING_DEFAULTS.items()}
    yield _named("| sampling | bounds |", bounds)


def _architecture_part() -> Iterator[str]:
    yield "## Architecture files\n"
    yield _keys(schema.ARCHITECTURE)
    yield f"Shipped, in `{modelspecs_dir().name}/architectures`:\n"
    architectures = map(load_architecture, architecture_names())
    yield _table(
        "| name | model_type | |",
        (
            (f"`{a.name}`", ", ".join(f"`{kind}`" for kind in a.model_types), a.description)
            for a in architectures
        ),
    )
    for title, keys in [
        ("huggingface", schema.HUGGINGFACE),
        ("checkpoint", schema.CHECKPOINT),
        ("config", schema.CONFIG),
        ("fields", schema.FIELD),
    ]:
        yield f"### {title}\n"
        yield _keys(keys)
    yield "### field types\n"
    yield ", ".join(f"`{kind}`" for kind in FIELD_TYPES) + "; brackets mean a list.\n"
    yield "### checks\n"
    yield _keys(schema.CHECK)
    yield "### notes\n"
    yield _keys(schema.NOTE)
    yield "### layer types\n"
    yield _keys(schema.LAYER_TYPE)
    yield (
        "Any name under `layer_attributes` is a key too; its expression must then have a value "
        "unless it is `none` itself.\n"
    )
    yield from _rope_part()
    yield from _statement_part()


def _rope_part() -> Iterator[str]:
    yield _ROPE + _keys(schema.ROPE_TABLE)
    yield _table(
        "| rope type | needs | may have |",
        (
            (f"`{name}`", _code_list(keys.required), _code_list(keys.optional))
            for name, keys in ROPE_KEYS.items()
        ),
    )
    yield _LONGROPE


def _code_list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _statement_part() -> Iterator[str]:
    rows = "".join(
        f"| `{name}({', '.join('ab'[:count])})` | {doc} |\n"
        for name, (count, _, doc) in NUMBER_FUNCTIONS.items()
    )
    yield _EXPRESSIONS + rows
    yield _STATEMENTS + _keys(schema.CONDITIONAL)
    yield "A weight is\n"
    yield _named("| form | |", WEIGHT_FORMS)
    yield "### Functions\n"
    for function in FUNCTIONS.values():
        yield "\n".join(_function(function)) + "\n"


def _function(function: Function) -> Iterator[str]:
    parts = [*function.names, *(["..."] if function.values[1] is None else [])]
    parts += [parameter.name for parameter in function.positional]
    parts += [f"{parameter.name}=" for parameter in function.keywords]
    yield f"#### {function.name}\n"
    yield f"`{function.name}({', '.join(parts)})`\n"
    inside = " Only inside layers." if function.in_layers else ""
    yield f"{function.doc}{_results(function)}{inside}"
    parameters = (*function.positional, *function.keywords)
    if parameters:
        rows = (
            (f"`{parameter.name}`", parameter.kind.value, _default(parameter), parameter.doc)
            for parameter in parameters
        )
        yield "\n" + _table("| argument | takes | default | |", rows).rstrip("\n")


def _results(function: Function) -> str:
    return {"values": " One result per value.", "sizes": " One result per size."}.get(
        str(function.results), ""
    )


def _default(parameter: Parameter) -> str:
    return "required" if parameter.default is REQUIRED else f"`{parameter.default}`"


def _device_part() -> Iterator[str]:
    yield "## Device files\n"
    yield _keys(schema.DEVICE)


if __name__ == "__main__":
    print(render_page(), end="")
