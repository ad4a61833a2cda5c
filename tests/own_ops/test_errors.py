"""What can be wrong with an op of the user's own: said with the file, and the line in Python."""

from __future__ import annotations

import re
import shutil
import textwrap
from pathlib import Path

import pytest

from qwen3_codegen.cli.main import main
from qwen3_codegen.compile import CompileOptions, build_model, plan_model
from qwen3_codegen.errors import BuildError, OpError
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.own_ops import load_ops
from qwen3_codegen.random_checkpoint import write_random_checkpoint
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.engine.prefill import prompt_logits
from tests.cli.descriptions import spoil
from tests.own_ops.models import OPS, write_own_model

ROW = """\
from qwen3_codegen.ops import *

OP = Op(
    name="mine",
    doc="y = x.",
    roles=(Role(name="x", shape="any"),),
    result="the shape of x",
    shape_rule=same_as("x"),
    reference=lambda inputs, attributes, step: inputs["x"],
)
"""
HEADER = "template <class T, size_t kColumns> struct Mine {};"


def write_op(folder: Path, row: str = ROW, header: str = HEADER, name: str = "mine") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(row, encoding="utf-8")
    (folder / f"{name}.hpp").write_text(header, encoding="utf-8")
    return folder


def refusal(*folders: Path) -> str:
    with pytest.raises(OpError) as error:
        load_ops(folders)
    return str(error.value)


def test_the_row_that_is_spoilt_below_is_fine(tmp_path):
    assert set(load_ops([write_op(tmp_path / "ops")])) == {"mine"}


# ---- folders and files ------------------------------------------------------------------------


def test_no_folder(tmp_path):
    missing = tmp_path / "ops"
    assert refusal(missing).startswith(f"{missing}: no folder with ops\n  got:      nothing there")
    (tmp_path / "file").touch()
    assert "got:      a file" in refusal(tmp_path / "file")
    assert f"{tmp_path}: a folder without ops" in refusal(tmp_path)


def test_two_folders_with_one_op(tmp_path):
    first, second = write_op(tmp_path / "a"), write_op(tmp_path / "b")
    message = refusal(first, second)
    assert f"{second / 'mine.py'}: there are two ops 'mine'\n  got:      {first}" in message


def test_two_ops_with_one_class(tmp_path):
    write_op(tmp_path, ROW.replace("mine", "mine_1"), "struct Mine1;", "mine_1")
    write_op(tmp_path, ROW.replace("mine", "mine1"), "struct Mine1;", "mine1")
    assert "two ops would have one class in C++\n  got:      mine_1 and mine1" in refusal(tmp_path)


def test_two_folders_with_different_headers_of_one_name(tmp_path):
    include = '#include "shared.hpp"\n'
    first = write_op(tmp_path / "a", header=include + HEADER)
    other = ROW.replace("mine", "yours")
    second = write_op(tmp_path / "b", other, include + "struct Yours;", "yours")
    for number, folder in enumerate((first, second)):
        (folder / "shared.hpp").write_text(f"int shared_{number};", encoding="utf-8")
    assert "two folders have different headers 'shared.hpp'" in refusal(first, second)


@pytest.mark.parametrize(
    ("row", "line", "got"),
    [
        ("import numpy\nnumpy.there_is_none\n", 2, "AttributeError: module 'numpy'"),
        ("import no_such_package", 1, "ModuleNotFoundError: No module named"),
        ("def f(:\n", 1, "SyntaxError: "),
        ("x = 1\nraise SystemExit(3)\n", 2, "SystemExit: 3"),
        (ROW.replace('    doc="y = x.",\n', ""), 3, "TypeError: .*'doc'"),
        (ROW.replace("OP = ", "OP = undefined or "), 3, "NameError: name 'undefined'"),
    ],
)
def test_a_file_that_does_not_run(tmp_path, row, line, got):
    message = refusal(write_op(tmp_path, row))
    assert message.startswith(f"{tmp_path / 'mine.py'}:{line}: an op's file does not run\n")
    assert re.search(f"got:      {got}", message)


def test_a_file_without_an_op(tmp_path):
    assert "mine.py: an op's file defines no OP\n" in refusal(write_op(tmp_path, "x = 1"))


def test_files_that_are_no_text(tmp_path):
    write_op(tmp_path)
    (tmp_path / "mine.hpp").write_bytes(b"struct Mine; // \xff")
    assert f"{tmp_path / 'mine.hpp'}: a header cannot be read" in refusal(tmp_path)
    (tmp_path / "mine.py").write_bytes(b"# \xff")
    assert f"{tmp_path / 'mine.py'}: an op's file cannot be read" in refusal(tmp_path)


# ---- rows -------------------------------------------------------------------------------------

ROLES = 'roles=(Role(name="x", shape="any"),)'
SHAPE_RULE = 'shape_rule=same_as("x")'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("OP = Op(", "OP = dict(", "OP is not a row of an op\n  got:      dict"),
        ('"mine"', '"other"', "an op has the name of its file\n  got:      'other'"),
        ('"y = x."', '""', "'doc' is no text"),
        (ROLES, "roles=()", "roles are one or more Role"),
        (ROLES, "roles='x'", "roles are one or more Role"),
        ('"any")', '"any", variadic=True)', "input 'x' is variadic"),
        ('"any")', '"any", required=False)', "input 'x' is optional"),
        ('"any")', '"any", element=Element.INT32)', "input 'x' has another element"),
        ('"any")', '"any", element="float32")', "input 'x' has another element"),
        ('"any")', '"any", element=Element.FLOAT32)', "input 'x' is a float32 value"),
        ('name="x"', 'name="a-b"', "not a name of an input or attribute\n  got:      'a-b'"),
        ('name="x"', 'name="lambda"', "not a name of an input or attribute"),
        ('name="x"', 'name="template"', "not a name of an input or attribute"),
        (ROLES, f"{ROLES}, weights={{'x': len}}", "the first input is a weight"),
        (ROLES, f"{ROLES}, weights={{'w': len}}", "weights name roles\n  got:      w"),
        (ROLES, f"{ROLES}, weights=('x',)", "weights map roles to functions"),
        (ROLES, f"{ROLES}, attributes=('a',)", "attributes are Attribute"),
        ('name="x"', "name=['x']", "not a name of an input or attribute"),
        (SHAPE_RULE, "shape_rule=None", "'shape_rule' is no function"),
        (SHAPE_RULE, f"{SHAPE_RULE}, kernel_sizes=3", "'kernel_sizes' is no function"),
        (SHAPE_RULE, f"{SHAPE_RULE}, num_results=0", "'num_results' is no number of results"),
        (
            ROLES,
            f"{ROLES}, attributes=(Attribute(name='x', kind=AttributeKind.INT, doc=''),)",
            "not a name of an input or attribute\n  got:      x, 2 times",
        ),
        (
            ROLES,
            f"{ROLES}, attributes=(Attribute(name='a', kind=AttributeKind.INTS, doc=''),)",
            "attribute 'a' is of another kind",
        ),
    ],
)
def test_a_bad_row(tmp_path, old, new, message):
    assert ROW.count(old) == 1
    said = refusal(write_op(tmp_path, ROW.replace(old, new)))
    assert said.startswith(f"{tmp_path / 'mine.py'}: {message}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("linear", "there is a built-in op 'linear'"),
        ("rotary_attention", "there is a built-in op 'rotary_attention'"),
        ("sqrt", "'sqrt' is a function of the spec language"),
        ("concat", "there is a built-in op 'concat'"),
        ("rows", "'rows' is a function of the spec language"),
        ("Mine", "not a name of an op"),
        ("mine__2", "not a name of an op"),
        ("int", "not a name of an op"),
        ("class", "not a name of an op"),
        ("a b", "not a name of an op"),
        ("x" * 49, "not a name of an op"),
    ],
)
def test_a_bad_name(tmp_path, name, message):
    folder = write_op(tmp_path, ROW.replace("mine", name), "struct X;", name)
    assert refusal(folder).startswith(f"{folder / name}.py: {message}")


def test_a_header_without_the_class(tmp_path):
    message = refusal(write_op(tmp_path, header="struct Other {};"))
    assert f"{tmp_path / 'mine.hpp'}: the header does not define 'struct Mine'" in message
    assert "struct Mine { static void run(const Tensor& out, const Tensor& x); }" in message


# ---- functions of a row -----------------------------------------------------------------------


@pytest.fixture
def ops(tmp_path) -> Path:
    """A copy of the tests' ops, to be spoilt, with a model that calls them."""
    write_own_model(tmp_path)
    shutil.copytree(OPS, tmp_path / "ops", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "ops"


def graph_of(ops: Path):
    return build_graph(load_model(str(ops.parent / "tiny.yaml"), own_functions=load_ops([ops])))


RULE = "    return (rows, columns), (rows, groups)\n"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "    return rows, columns\n",
            "gives no shapes of results\n  got:      ('num_tokens', 24)",
        ),
        ("    return ((rows, columns),)\n", "gives no shapes of results"),
        ("    return (columns, rows), (rows, groups)\n", "gives no shapes of results"),
        ("    return (rows, columns / 2), (rows, groups)\n", "gives no shapes of results"),
        ("    return None\n", "gives no shapes of results\n  got:      None"),
    ],
)
def test_a_shape_rule_that_gives_no_shapes(ops, rule, message):
    spoil(ops / "gated_mix.py", RULE, rule)
    line = 1 + (ops / "gated_mix.py").read_text("utf-8").split("def shape_rule")[0].count("\n")
    with pytest.raises(OpError) as error:
        graph_of(ops)
    place = f"{ops / 'gated_mix.py'}:{line}: the shape rule of 'gated_mix' "
    assert str(error.value).startswith(place + message)


def test_a_shape_rule_that_fails(ops):
    line = spoil(ops / "gated_mix.py", RULE, "    return shapes['none']\n")
    with pytest.raises(OpError) as error:
        graph_of(ops)
    place = f"{ops / 'gated_mix.py'}:{line}: the shape rule of 'gated_mix' failed"
    assert str(error.value) == f"{place}\n  got:      KeyError: 'none'"


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("shapes['none']", "failed\n  got:      KeyError: 'none'"),
        ("(0,)", "gives no sizes\n  got:      (0,)"),
        ("len(attributes)", "gives no sizes\n  got:      3"),
        ("3", "gives no sizes\n  got:      3"),
    ],
)
@pytest.mark.parametrize("what", ["the shape of weight 'floor'", "kernel_sizes"])
def test_sizes_that_are_none(ops, what, new, message):
    old = {
        "kernel_sizes": '(shapes["x"][1], shapes["gate"][1])',
        "the shape of weight 'floor'": '(shapes["gate"][1],)',
    }
    line = spoil(ops / "gated_mix.py", old[what], new)
    spec = load_model(str(ops.parent / "tiny.yaml"), own_functions=load_ops([ops]))
    with pytest.raises(OpError) as error:
        plan_model(spec, load_device("cpu"), CompileOptions())
    said = str(error.value)
    assert said.startswith(f"{ops / 'gated_mix.py'}:{line}: {what} of 'gated_mix' {message}")


REFERENCE = "    return x * np.clip(x + 3, 0, 6) / 6\n"


def interpret(ops: Path) -> None:
    spec = load_model(str(ops.parent / "tiny.yaml"), own_functions=load_ops([OPS]))
    write_random_checkpoint(spec, ops.parent / "checkpoint", seed=1)
    with open_checkpoint(ops.parent / "checkpoint") as checkpoint:
        engine = Interpreter(graph_of(ops), checkpoint.read, max_model_len=64, max_num_seqs=1)
        prompt_logits(engine, [[1, 2, 3]])


@pytest.mark.parametrize(
    ("body", "got"),
    [
        ("    return x[:, 1:]\n", "float64[3, 39]"),
        ("    return x.sum()\n", "float64[]"),
        ("    return x, x\n", "float64[3, 40], float64[3, 40]"),
        ("    return x > 0\n", "bool[3, 40]"),
        ("    return None\n", "object[]"),
    ],
)
def test_a_reference_that_breaks_the_shape_rule(ops, body, got):
    file = ops / "hard_swish.py"
    spoil(file, REFERENCE, body)
    line = 1 + file.read_text("utf-8").split("def reference")[0].count("\n")
    with pytest.raises(OpError) as error:
        interpret(ops)
    assert str(error.value) == textwrap.dedent(f"""\
        {file}:{line}: the reference of 'hard_swish' gives something else than its shape rule says
          got:      {got}
          expected: float64[3, 40]""")


@pytest.mark.parametrize(
    ("body", "got"),
    [
        ("    return x @ x\n", "ValueError: matmul"),
        ("    raise SystemExit(0)\n", "SystemExit: 0"),
        ("    x += 1; return x\n", "ValueError: output array is read-only"),
    ],
)
def test_a_reference_that_fails(ops, body, got):
    line = spoil(ops / "hard_swish.py", REFERENCE, body)
    with pytest.raises(OpError) as error:
        interpret(ops)
    place = f"{ops / 'hard_swish.py'}:{line}: the reference of 'hard_swish' failed\n"
    assert str(error.value).startswith(f"{place}  got:      {got}")


# ---- compiling --------------------------------------------------------------------------------


@pytest.mark.compile
def test_a_header_that_does_not_compile(ops, tmp_path):
    old = "return 1.0f / (1.0f + std::exp(-x));"
    line = spoil(ops / "logistic.hpp", old, "return 1.0f / (1.0f + std::exp(-x) + nonsense);")
    spec = load_model(str(tmp_path / "tiny.yaml"), own_functions=load_ops([ops]))
    options = CompileOptions()
    compiled = plan_model(spec, load_device("cpu"), options)
    with pytest.raises(BuildError) as error:
        build_model(compiled, tmp_path / "out", options, lambda text: None)
    said = str(error.value)
    assert f"{tmp_path / 'out' / 'tiny_cpu'}: your logistic.hpp did not compile" in said
    assert re.search(rf"own_ops/logistic\.hpp:{line}:\d+: error: .*nonsense", said)
    assert (tmp_path / "out" / "tiny_cpu" / "own_ops" / "logistic.hpp").is_file()


def test_the_command_line_shows_no_traceback(ops, tmp_path, capsys):
    (ops / "hard_swish.py").write_text("1 / 0", encoding="utf-8")
    arguments = ["graph", "--spec", str(tmp_path / "tiny.yaml"), "--ops", str(ops)]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: {ops / 'hard_swish.py'}:1: an op's file does not run\n"
        "  got:      ZeroDivisionError: division by zero\n"
    )
