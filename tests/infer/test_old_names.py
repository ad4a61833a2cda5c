"""Names of the old engine that are not here say what to write instead."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import qwen3_codegen
from qwen3_runtime import infer, launch_server
from qwen3_runtime.infer.compiler import compiler_module


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


MODULES = ("qwen3", "jiuge", "infer_task", "libinfinicore_infer")


@pytest.mark.parametrize("module", MODULES)
def test_modules_offer_what_the_scripts_had(module):
    offered = importlib.import_module(f"qwen3_runtime.{module}")
    for name in offered.__all__:
        assert getattr(offered, name) is getattr(infer, name)


def test_the_compiler_s_package_offers_them_too():
    for name in infer.__all__:
        assert getattr(qwen3_codegen, name) is getattr(infer, name)


@pytest.mark.parametrize(
    ("module", "name", "says"),
    [
        ("jiuge", "JiugeMetaFromLlama", "modelspecs/architectures"),
        ("jiuge", "JiugeForCausalLM", "JiugeForCauslLM"),
        ("qwen3", "Qwen3WeightsImpl", "qwen3_runtime.checkpoint"),
        ("infer_task", "JiugeBatchedTask", "batch_infer_one_round"),
        ("libinfinicore_infer", "create_jiuge_model", "qwen3_engine.h"),
        ("libinfinicore_infer", "DataType", "dtype="),
    ],
)
def test_what_is_gone_says_what_to_write(module, name, says):
    with pytest.raises(ImportError, match=f"(?s)'{name}' of InfiniCore-Infer is not here.*{says}"):
        exec(f"from qwen3_runtime.{module} import {name}")


def test_what_never_was_is_an_ordinary_error():
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        exec("from qwen3_runtime.jiuge import Nonsense")
    assert not hasattr(importlib.import_module("qwen3_runtime.qwen3"), "Nonsense")


def test_attributes_of_a_model(qwen3_folder):
    model = infer.Qwen3ForCausalLM(qwen3_folder, engine="interpreter")
    with pytest.raises(AttributeError, match=r"(?s)'model_instance'.*destroy_model_instance"):
        _ = model.model_instance
    with pytest.raises(
        AttributeError, match="'Qwen3ForCausalLM' object has no attribute 'nonsense'"
    ):
        _ = model.nonsense


WITHOUT_COMPILER = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "qwen3_codegen":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from qwen3_runtime.launch_server import main
from qwen3_runtime.qwen3 import Qwen3ForCausalLM
try:
    Qwen3ForCausalLM("anywhere")
except Exception as error:
    print(error)
print(main(["--model-path", "anywhere"]))
"""


def test_without_the_compiler_the_names_are_there_and_say_what_is_missing():
    done = python(WITHOUT_COMPILER)
    assert "the compiler is not installed" in done.stdout, done.stderr
    assert "hint:     pip install qwen3-codegen" in done.stdout
    assert done.stdout.endswith("\n2\n")
    assert done.stderr.startswith("error: a model's engine is compiled when it is first used")


def test_a_broken_import_inside_the_compiler_is_not_taken_for_its_absence():
    with pytest.raises(ModuleNotFoundError, match="no_such_part"):
        compiler_module("no_such_part")


def test_the_runtime_s_names_import_no_compiler():
    code = (
        "import sys, qwen3_runtime.qwen3, qwen3_runtime.launch_server\n"
        "print([name for name in sys.modules if name.startswith('qwen3_codegen')])"
    )
    done = python(code)
    assert done.stdout == "[]\n", done.stderr


def test_serve_takes_what_launch_server_forwards():
    from qwen3_codegen.cli.main import _parser

    line = "--dev cpu --model-path DIR --ndev 1 --max-batch 4 --max-tokens 512"
    arguments = launch_server.serve_arguments(line.split())
    args = _parser("serve").parse_args(arguments)
    assert (args.model, args.dev, args.ndev) == ("DIR", "cpu", 1)
    assert (args.max_num_seqs, args.max_model_len) == (4, 512)
