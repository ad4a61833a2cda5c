"""An architecture is one YAML file: no Python, C++ or template knows its name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from qwen3_codegen.compile import CompileOptions, build_model, plan_model
from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import LoweringError
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.ir.verify import verify
from qwen3_codegen.passes import run_pipeline
from qwen3_codegen.paths import modelspecs_dir
from qwen3_codegen.random_checkpoint import write_random_checkpoint
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.spec.model import ModelSpec
from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.engine.capacity import Limits
from qwen3_runtime.engine.compiled import CompiledEngine, engine_class
from qwen3_runtime.engine.prefill import prompt_logits
from tests.reference.cases import CASES, ReferenceCase
from tests.reference.models import assert_logits_match

OPTIONS = CompileOptions(dtype=DType.F32)
LIMITS = Limits(max_model_len=128, max_num_seqs=4)
UNKNOWN_TO_A_MODEL_SPEC = ("bos_token_id", "eos_token_id", "pad_token_id")


def engine_of(spec: ModelSpec, checkpoint: Path, out: Path) -> CompiledEngine:
    compiled = plan_model(spec, load_device("cpu"), OPTIONS)
    directory = build_model(compiled, out, OPTIONS, lambda text: None).directory
    return engine_class(directory).from_checkpoint(checkpoint, limits=LIMITS, show_progress=False)


def write_model_spec(folder: Path, name: str, architecture: str, config: dict) -> Path:
    file = folder / f"{name}.yaml"
    document = {"name": name, "architecture": architecture, "config": config}
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return file


def shipped_architecture(name: str) -> str:
    return (modelspecs_dir() / "architectures" / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.compile
def test_a_model_spec_names_an_architecture_beside_it(reference, tmp_path):
    """OLMo 2 under a name that nothing else knows, with a checkpoint of its own model_type."""
    model = reference("olmo2")
    text = shipped_architecture("olmo2").replace("olmo2", "boreal").replace("Olmo2", "Boreal")
    (tmp_path / "boreal.yaml").write_text(text, encoding="utf-8")
    config = {k: v for k, v in model.case.config.items() if k not in UNKNOWN_TO_A_MODEL_SPEC}
    spec = load_model(str(write_model_spec(tmp_path, "boreal-tiny", "./boreal.yaml", config)))
    assert spec.architecture.name == "boreal"

    checkpoint = shutil.copytree(model.path, tmp_path / "checkpoint")
    document = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    document |= {"model_type": "boreal", "architectures": ["BorealForCausalLM"]}
    (checkpoint / "config.json").write_text(json.dumps(document), encoding="utf-8")
    engine = engine_of(spec, checkpoint, tmp_path)
    for prompt, actual in zip(model.prompts(), engine.forward(model.prompts()), strict=True):
        assert_logits_match(actual, model.logits(prompt))


PARALLEL_BLOCKS = """
architecture: parallel
description: attention and MLP side by side, and what no shipped architecture combines
huggingface: {model_type: parallel, class: ParallelForCausalLM}
config:
  consumed:
    vocab_size: {type: int, min: 1}
    hidden_size: {type: int, min: 1}
    intermediate_size: {type: int, min: 1}
    num_hidden_layers: {type: int, min: 1}
    num_attention_heads: {type: int, min: 1}
    num_key_value_heads: {type: int, min: 1}
    head_dim: {type: int, min: 1}
    max_position_embeddings: {type: int, min: 1}
    rms_norm_eps: {type: float, above: 0}
    window: {type: int, min: 1}
    branch_scale: {type: float, above: 0}

rope:
  rope: {head_dim: head_dim, partial_rotary_factor: 0.5}

layer_types:
  near: {window: window}
  far: {}
layer_type: "'far' if layer % 3 == 2 else 'near'"
layer_attributes: {window: none, rope: rope}

checkpoint:
  layer_prefix: "blocks.{layer}."

prologue:
  - h = embedding(input_ids, weight=wte, size=[vocab_size, hidden_size])

layer:
  - x = rms_norm(h, weight=norm, offset=1)
  - q = linear(x, weight=attn.q, out=[num_attention_heads, head_dim], bias=true)
  - k = linear(x, weight=attn.k, out=[num_key_value_heads, head_dim])
  - v = linear(x, weight=attn.v, out=[num_key_value_heads, head_dim], bias=true)
  - when: layer.window == none
    then:
      - q, k = rope(q, k, table=layer.rope)
  - a = attention(q, k, v, scale=0.3, window=layer.window)
  - a = linear(a, weight=attn.out, out=hidden_size)
  - m = linear(x, weight=mlp.up, out=intermediate_size)
  - m = linear(relu2(m), weight=mlp.down, out=hidden_size, bias=true)
  - m = m * sigmoid(linear(x, weight=mlp.share, out=1))
  - a = layer_norm(a, weight=attn.norm, eps=rms_norm_eps)
  - h = h + branch_scale * (a + m)

epilogue:
  - h = layer_norm(h, weight=final_norm, eps=0.1, bias=false)
  - logits = linear(h, weight=wte, out=vocab_size)
"""


@pytest.mark.compile
def test_a_parallel_block_of_ones_own(tmp_path):
    """No other implementation has it: the oracle is the graph in float64."""
    (tmp_path / "parallel.yaml").write_text(PARALLEL_BLOCKS, encoding="utf-8")
    config = {
        "vocab_size": 211,
        "hidden_size": 44,
        "intermediate_size": 70,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": 256,
        "rms_norm_eps": 0.05,
        "rope_theta": 77.0,
        "window": 5,
        "branch_scale": 0.7,
        "torch_dtype": "float32",
    }
    spec = load_model(str(write_model_spec(tmp_path, "mine", "parallel.yaml", config)))
    write_random_checkpoint(spec, tmp_path / "checkpoint", seed=3)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 211, size=length).tolist() for length in (83, 1, 17)]
    with open_checkpoint(tmp_path / "checkpoint") as checkpoint:
        graph = build_graph(spec)  # before any pass
        oracle = Interpreter(graph, checkpoint.read, max_model_len=128, max_num_seqs=4)
        expected = prompt_logits(oracle, prompts)
        engine = engine_of(spec, tmp_path / "checkpoint", tmp_path)
    for actual, right in zip(engine.forward(prompts), expected, strict=True):
        assert np.ptp(right) > 1.0
        assert_logits_match(actual, right)


@pytest.mark.parametrize("name", ["olmo2", "gemma3", "phi3"])
def test_worked_examples_are_no_part_of_the_compiler(name):
    """Comments may say where a formula is from; no code asks for an architecture's name."""
    root = modelspecs_dir().parent
    sources = [
        file
        for folder in ("codegen", "templates", "runtime/cpp")
        for file in (root / folder).rglob("*")
        if file.suffix in {".py", ".jinja", ".hpp", ".cpp"}
    ]
    assert len(sources) > 50
    quoted = re.compile(rf"""["']{name}""", re.IGNORECASE)
    assert not [file for file in sources if quoted.search(file.read_text(encoding="utf-8"))]


QWEN3_NEXT = ReferenceCase(
    id="qwen3-next",
    architecture="qwen3_next",
    config={
        "model_type": "qwen3_next",
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 128,
        "rms_norm_eps": 0.01,
        "rope_theta": 100.0,
        "hidden_act": "silu",
    },
)
MIXTURES = {
    "qwen3_moe": next(case for case in CASES if case.id == "qwen3-moe"),
    "qwen3_next": QWEN3_NEXT,
}


def config_file(case: ReferenceCase, folder: Path) -> Path:
    document = {"model_type": case.architecture, **case.config}
    (folder / "config.json").write_text(json.dumps(document), encoding="utf-8")
    return folder / "config.json"


@pytest.mark.parametrize("case", MIXTURES.values(), ids=MIXTURES)
def test_mixtures_parse_and_verify(case, tmp_path):
    spec = load_model(str(config_file(case, tmp_path)))
    graph = build_graph(spec)
    verify(graph)
    verify(run_pipeline(graph))
    assert "moe" in {node.op for region in graph.layer_kinds for node in region.nodes}


@pytest.mark.parametrize(
    ("case", "ops"),
    [
        (MIXTURES["qwen3_moe"], "moe"),
        (QWEN3_NEXT, "causal_conv1d, gated_delta_net, l2_norm, moe, sigmoid"),
    ],
    ids=MIXTURES,
)
def test_mixtures_are_refused_by_name(case, ops, tmp_path):
    spec = load_model(str(config_file(case, tmp_path)))
    with pytest.raises(LoweringError) as refused:
        plan_model(spec, load_device("mlu"), OPTIONS)
    message = str(refused.value)
    assert f"modelspecs/architectures/{case.architecture}.yaml:" in message
    assert f"the portable lowering cannot carry out {ops}\n" in message
    assert ("--dev cpu" in message) == (ops == "moe")
    assert "`qwen3-codegen generate --engine interpreter`" in message
