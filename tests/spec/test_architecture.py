from __future__ import annotations

import pytest

from qwen3_codegen.spec.architecture import check_name
from qwen3_codegen.spec.catalog import architecture_names, load_architecture
from qwen3_codegen.spec.evaluation import to_text
from qwen3_codegen.spec.problems import SpecErrors
from qwen3_codegen.spec.syntax import Name, Unary
from tests.spec.descriptions import ARCHITECTURE, architecture, error_of, line_of


def broken(old: str, new: str) -> tuple[str, str]:
    """Returns the error of one changed line, and where it should point."""
    text = ARCHITECTURE.replace(old, new, 1)
    line = line_of(text, new.splitlines()[-1])
    return error_of(architecture, (old, new)), f"tiny.yaml:{line}"


def test_an_architecture_is_read_whole() -> None:
    tiny = architecture()
    assert (tiny.name, tiny.model_type, tiny.model_types) == ("tiny", "tiny", ("tiny",))
    assert tiny.huggingface_class == "TinyForCausalLM"
    assert list(tiny.blocks) == ["layer"]
    assert len(tiny.blocks["layer"]) == 7
    assert tiny.layer_types["sliding"].blocks == ("layer",)
    assert to_text(tiny.layer_types["sliding"].attributes["window"].expression) == "sliding_window"
    assert tiny.checkpoint.layer_prefix == "model.layers.{layer}."
    assert tiny.config.must_equal == {"hidden_act": ("silu",)}
    assert str(tiny.prologue[0].location) == f"tiny.yaml:{line_of(ARCHITECTURE, '= embedding')}"


EMBEDDING = "- h = embedding(input_ids, weight=embed, size=[vocab_size, hidden_size])"
LOGITS = "- logits = linear(h, weight=head, out=vocab_size)"
NORM = "- x = rms_norm(h, weight=norm)"
FLAWS = [
    (NORM, "- x = rms_nrm(h, weight=norm)", "unknown op 'rms_nrm'"),
    (NORM, "- x = rms_norm(h, wight=norm)", "'rms_norm' has no keyword 'wight'"),
    (NORM, "- x = rms_norm(h)", "'rms_norm' needs the keyword 'weight'"),
    (NORM, "- x = rms_norm(h, h, weight=norm)", "'rms_norm' takes 1 positional argument(s)"),
    (NORM, "- x = rms_norm(8, weight=norm)", "'rms_norm' needs a value of the graph"),
    (NORM, "- x = rms_norm(hh, weight=norm)", "unknown name 'hh'"),
    (NORM, "- x = rms_norm(q, weight=norm)", "'q' is used before it is defined"),
    (NORM, "- x = rms_norm(x, weight=norm)", "'x' is used before it is defined"),
    (NORM, "- x, y = rms_norm(h, weight=norm)", "2 target(s) for 1 result(s)"),
    (NORM, "- x = rms_norm(h, weight=norm, eps=h)", "'h' is a value of the graph; a number is nee"),
    (NORM, "- x = rms_norm(h, weight=norm, eps=layer)", "'layer' is used without an attribute"),
    (NORM, "- x = rms_norm(h, weight=norm, eps=layer.x)", "a layer has no attribute 'x'"),
    (
        NORM,
        "- x = rms_norm(h, weight=norm, eps=silu(h))",
        "'silu' gives a value; a number is needed",
    ),
    (NORM, "- x = rms_norm(h, weight=norm, eps=sqr(3))", "unknown op 'sqr'"),
    (NORM, "- x = rms_norm(h, weight=norm, eps=sqrt(3, 2))", "'sqrt' takes 1 plain argument(s)"),
    (NORM, "- x = rms_norm(h, weight=a.b[0 - 1])", "not a weight path"),
    (NORM, "- x = rms_norm(h, weight=a.b[layer])", "not a weight path"),
    (NORM, "- x = rms_norm(h, weight=a + b)", "not a weight path"),
    (NORM, "- x = rms_norm(h, weight='../../etc')", "not a weight path"),
    (NORM, "- x = rms_norm(h, weight=rows(a.b, 0))", "not a weight path"),
    (NORM, "- x = rms_norm(h, weight=rows(a.b, 0, cnt))", "unknown name 'cnt'"),
    (NORM, "- x = rms_norm(h, weight=a if foo else b)", "unknown name 'foo'"),
    (
        NORM,
        "- x = rms_norm(rope(h, h, table=layer.rope), weight=norm)",
        "'rope' gives several resu",
    ),
    (NORM, "- x = h + 1", "a value and a number cannot be added"),
    (NORM, "- x = 1 / h", "division by a value of the graph"),
    (NORM, "- x = h - h", "there is no '-' for values of the graph"),
    (NORM, "- x = -silu(h)", "there is no '-' for values of the graph"),
    (NORM, "- x = h ** 2", "there is no '**' for values of the graph"),
    *(
        (NORM, f"- {name} = silu(h)", "not a name for a value\n  got:      " + name)
        for name in ("x_", "_x", "x__y", "_")
    ),
    *(
        (NORM, f"- x = rms_norm(h, weight=rows({rows}, 0, 8))", "'rows' takes rows of one tensor")
        for rows in (
            "concat(a, b)",
            "rows(a, 0, 9)",
            "a[expert].b",
            "tensor(a[expert])",
            "a if true else concat(a, b)",
        )
    ),
    (NORM, "- x = rms_norm(h, weight=concat(a, b[expert]))", "'concat' joins rows of tensors"),
    (EMBEDDING, f"{EMBEDDING}\n  - h = rope(h, table='rope')", "'rope' works only inside layers"),
    (LOGITS, "- h = attention(h, h, h, scale=1)", "'attention' works only inside layers"),
    (LOGITS, "- h = causal_conv1d(h, weight=c, kernel=4)", "'causal_conv1d' works only inside l"),
    (
        LOGITS,
        "- h = gated_delta_net(h, h, h, h, h, a_log=a, dt_bias=b)",
        "'gated_delta_net' works only inside layers",
    ),
    (NORM, "- x = 8", "a statement must compute a value of the graph"),
    (NORM, "- x = silu(h) if foo else h", "unknown name 'foo'"),
    (NORM, "- x = h if true else 8", "one branch is a value and the other a number"),
    (NORM, "- layer = rms_norm(h, weight=norm)", "'layer' is reserved"),
    (NORM, "- vocab_size = rms_norm(h, weight=norm)", "'vocab_size' is a config field"),
    (NORM, "- import os", "not a statement"),
    (NORM, "- [x]", "a statement is text, or a mapping with 'when' and 'then'"),
    (NORM, "- {when: true, than: []}", "unknown key 'than' in a conditional statement"),
    ("- q, k = rope(", "- q, k = rope(h, ", "2 target(s) for 3 result(s)"),
    ("architecture: tiny", "architecture: ../tiny", "'architecture' may hold letters, digits"),
    ("architecture: tiny", "architecture: 'a;system(1)'", "'architecture' may hold letters, di"),
    ("class: TinyForCausalLM", "class: Tiny.os", "'class' is not a name"),
    ("model_type: tiny", "model_type: [tiny, 'x y']", "'model_type' is not a name"),
    ("prologue:", "prologuo:", "unknown key 'prologuo' in an architecture file"),
    ("min: 1}", "minimum: 1}", "unknown key 'minimum' in config field 'vocab_size'"),
    ("type: int, min: 1}", "type: integer}", "unknown type 'integer' of config field 'vocab_size'"),
    ("min: 1}", "min: one}", "'min' of config field 'vocab_size' has the wrong type"),
    (
        "default: num_attention_heads",
        "default: heads",
        "a default uses 'heads', which is no config",
    ),
    ("default: num_attention_heads", "default: head_dim", "a default uses 'head_dim', which is no"),
    ("must_equal: {hidden_act: silu}", "must_equal: {head_dim: 8}", "'head_dim' is consumed above"),
    (
        "must_equal: {hidden_act: silu}",
        "must_equal: {hidden_act: {}}",
        "'hidden_act' must equal a ",
    ),
    ("rope: {head_dim: head_dim}", "rope: {head_dim: hed_dim}", "unknown name 'hed_dim'"),
    (
        "rope: {head_dim: head_dim}",
        "rope: {theta: 1.0}",
        "unknown key 'theta' in rope table 'rope'",
    ),
    (
        "rope: {head_dim: head_dim}",
        "rope: {head_dim: head_dim, original_max_position_embeddings: max_pos}",
        "unknown name 'max_pos'",
    ),
    ("  rope: {head_dim", "  head_dim: {head_dim", "'head_dim' is a config field too"),
    ("{head_dim: head_dim}", "{head_dim: head_dim, types: [yarm]}", "unknown rope type 'yarm'"),
    ("  full: {}", "  Full: {}", "not a layer type name"),
    ("  full: {}", "  full_: {}", "not a layer type name"),
    ("  full: {}", "  a__b: {}", "not a layer type name"),
    ("  full: {}", "  class: {}", "a layer type has the name of a C++ keyword"),
    ("{window: none,", "{window__: 3, window: none,", "not a layer attribute name"),
    ("  rope: {head_dim: head_dim}", "  aB: {head_dim: head_dim}", "not a rope table name"),
    *(
        (
            "  rope: {head_dim: head_dim}",
            f"  rope: {{head_dim: head_dim}}\n  {first}: {{head_dim: head_dim}}"
            f"\n  {second}: {{head_dim: head_dim}}",
            f"two rope tables would have one name in C++\n  got:      {second} and {first}",
        )
        for first, second in (("a1", "a_1"), ("a", "a_long"), ("a_long", "a"))
    ),
    ("  full: {}", "  full: {windw: 3}", "unknown key 'windw' in layer type 'full'"),
    ("  full: {}", "  full: {blocks: [mlp]}", "unknown key 'mlp' in 'blocks'"),
    ("layer_types[layer]", "layer_kinds[layer]", "unknown name 'layer_kinds'"),
    ("{window: none,", "{window: sliding,", "unknown name 'sliding'"),
    ("logits = linear(h", "logit = linear(h", "the epilogue does not define 'logits'"),
    ("h = embedding", "e = embedding", "the prologue does not define 'h'"),
]


@pytest.mark.parametrize(("old", "new", "message"), FLAWS, ids=[flaw[1] for flaw in FLAWS])
def test_a_flaw_is_named_with_its_line(old: str, new: str, message: str) -> None:
    error, where = broken(old, new)
    assert f"{where}: {message}" in error


def test_messages_are_complete() -> None:
    error, where = broken(NORM, "- x = rms_nrm(h, weight=norm)")
    assert error.splitlines() == [
        f"{where}: unknown op 'rms_nrm'",
        "  expected: embedding, linear, rms_norm, layer_norm, l2_norm, rope, attention, reshape, "
        "split, concat, silu, gelu, gelu_tanh, relu, relu2, sigmoid, softplus, tanh, moe, "
        "causal_conv1d, gated_delta_net",
        "  hint:     did you mean 'rms_norm'?",
    ]


def test_a_long_list_of_faults_is_cut() -> None:
    flawed = "\n".join(f"  - x{index} = silu(y{index})" for index in range(30))
    error = error_of(architecture, (f"  {NORM}", f"{flawed}\n  {NORM}"))
    assert error.count("unknown name 'y") == 20
    assert error.endswith("\n... and 10 more")


def test_a_value_defined_below_is_called_a_cycle() -> None:
    error, where = broken(NORM, "- x = rms_norm(q, weight=norm)")
    below = int(where.split(":")[1]) + 1
    assert error.startswith(
        f"{where}: 'q' is used before it is defined\n"
        f"  hint:     tiny.yaml:{below} defines it; statements run in order, "
        "and two that need each other are a cycle"
    )


def test_all_faults_of_a_file_are_reported_at_once() -> None:
    with pytest.raises(SpecErrors) as caught:
        architecture(
            ("min: 1}", "minn: 1}"), ("class: Tiny", "klass: Tiny"), ("full: {}", "full: 3")
        )
    lines = [str(error).splitlines()[0] for error in caught.value.errors]
    assert lines == [
        "tiny.yaml:3: unknown key 'klass' in 'huggingface'",
        "tiny.yaml:3: 'huggingface' has no 'class'",
        "tiny.yaml:6: unknown key 'minn' in config field 'vocab_size'",
        f"tiny.yaml:{line_of(ARCHITECTURE, 'full: {}')}: layer type 'full' must be a mapping",
    ]


def test_a_fault_shared_by_layer_types_is_reported_once() -> None:
    error, where = broken(NORM, "- x = rms_norm(hh, weight=norm)")
    assert error.count(f"{where}: unknown name 'hh'") == 1


@pytest.mark.parametrize(
    "key", ["description", "huggingface", "config", "prologue", "layer", "epilogue"]
)
def test_a_missing_section_is_named(key: str) -> None:
    error = error_of(architecture, (f"\n{key}:", f"\n# {key}:"))
    assert f"an architecture file has no '{key}'" in error or "not YAML" in error


def test_fields_that_later_stages_read_are_needed() -> None:
    error = error_of(architecture, ("    max_position_embeddings: {type: int, min: 1}\n", ""))
    assert error.startswith("tiny.yaml:1: an architecture must consume 'max_position_embeddings'")


@pytest.mark.parametrize(
    "rule",
    [
        "{type: float, min: 1}",
        "{type: int}",
        "{type: int, min: 0}",
        "{type: int, above: -1}",
        "{type: int, min: 1, nullable: true}",
        "{type: str}",
    ],
)
def test_fields_that_later_stages_read_are_sizes(rule: str) -> None:
    error, where = broken("num_hidden_layers: {type: int, min: 1}", f"num_hidden_layers: {rule}")
    assert f"{where}: an architecture must consume 'num_hidden_layers' as a size" in error
    architecture(("vocab_size: {type: int, min: 1}", "vocab_size: {type: int, above: 0}"))


def test_rms_norm_without_eps_needs_the_config_field() -> None:
    error = error_of(architecture, ("    rms_norm_eps: {type: float, above: 0}\n", ""))
    assert "'rms_norm' needs the keyword 'eps'" in error
    assert "its default is 'rms_norm_eps', which the config does not have" in error


def test_conditions_are_collected_from_nested_mappings() -> None:
    nested = (
        "- when: num_hidden_layers > 1\n"
        "    then:\n"
        "      - x = rms_norm(h, weight=norm)\n"
        "      - when: layer.window == none\n"
        "        then: [x = silu(x)]\n"
        "        else: [x = relu(x)]"
    )
    statements = architecture((NORM, nested)).blocks["layer"]
    whens = [[to_text(test) for test in statement.when] for statement in statements[:3]]
    assert whens == [
        ["num_hidden_layers > 1"],
        ["num_hidden_layers > 1", "layer.window == none"],
        ["num_hidden_layers > 1", "not (layer.window == none)"],
    ]
    assert isinstance(statements[2].when[1], Unary)


def test_blocks_are_chosen_by_layer_types() -> None:
    text = ARCHITECTURE.replace("layer:\n  - x", "blocks:\n  first:\n  - x").replace(
        "epilogue:", "  second:\n  - h = silu(h)\nepilogue:"
    )
    text = text.replace("full: {}", "full: {blocks: [second, first]}")
    tiny = architecture(text=text)
    assert tiny.layer_types["full"].blocks == ("second", "first")
    assert tiny.layer_types["sliding"].blocks == ("first", "second")
    both = text.replace("blocks:\n  first", "layer: []\nblocks:\n  first")
    assert "'layer' and 'blocks' exclude each other" in error_of(architecture, text=both)


def test_a_weight_path_may_take_every_form() -> None:
    for path in [
        "a.b",
        "experts[expert].w",
        "layers[3].w",
        "a.b if num_hidden_layers > 2 else c",
        "rows(a.b, hidden_size, 2 * head_dim)",
        "rows(tensor(a.b), 0, 8)",
        "rows(a.b if num_hidden_layers > 2 else c[3].d, 0, 8)",
        "concat(a.q, rows(a.kv, 0, 8))",
        "tensor(a.A_log)",
    ]:
        statement = architecture((NORM, f"- x = rms_norm(h, weight={path})")).blocks["layer"][0]
        assert statement.targets == ("x",)
    assert statement.expression.arguments == (Name("h"),)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["a", "Qwen3-1.7B_x", "9g"])
def test_good_names(name: str) -> None:
    check_name(name, "here")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a b", "-a", "a\n", "a;b", "a'", "${a}", "é", "x" * 81]
)
def test_names_that_are_no_folder_or_identifier_are_refused(name: str) -> None:
    message = error_of(check_name, name, "here:1")
    assert message.startswith("here:1: 'name' may hold letters, digits, '.', '_' and '-' only")
    assert message.isascii()


@pytest.mark.parametrize("name", architecture_names())
def test_shipped_architectures_are_sound(name: str) -> None:
    shipped = load_architecture(name)
    assert shipped.name == name
    assert shipped.location.path == f"modelspecs/architectures/{name}.yaml"


def test_no_model_type_names_two_architectures() -> None:
    types = [kind for name in architecture_names() for kind in load_architecture(name).model_types]
    assert len(types) == len(set(types))


def test_an_unknown_architecture_suggests_a_near_one() -> None:
    message = error_of(load_architecture, "qwen33", where="m.yaml:3")
    assert message.startswith("m.yaml:3: unknown architecture 'qwen33'\n  expected: a path ending")
    assert message.endswith("hint:     did you mean 'qwen3'?")
    assert error_of(load_architecture, "no/such.yaml") == (
        "architecture file not found\n  got:      no/such.yaml"
    )
