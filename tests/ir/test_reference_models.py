"""The interpreter against transformers, before and after all passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.passes import run_pipeline
from qwen3_codegen.spec.catalog import load_model
from qwen3_runtime.checkpoint import open_checkpoint
from tests.ir.tiny import batch
from tests.reference.cases import CASES
from tests.reference.models import ReferenceModel, assert_logits_match

CASE_IDS = [case.id for case in CASES]
MAX_MODEL_LEN = 100
"""Above every prompt; below the longrope thresholds that are meant not to be passed."""


def engine_of(path: Path, architecture: str, *, optimised: bool) -> Interpreter:
    graph = build_graph(load_model(str(path), architecture=architecture))
    if optimised:
        graph = run_pipeline(graph)
    checkpoint = open_checkpoint(path)
    return Interpreter(graph, checkpoint.read, max_model_len=MAX_MODEL_LEN, max_num_seqs=4)


@pytest.mark.parametrize("case_id", CASE_IDS)
def test_a_mixed_prefill_equals_transformers(
    case_id: str, reference: Callable[[str], ReferenceModel]
) -> None:
    model = reference(case_id)
    prompts = model.prompts()
    step = batch(*((slot, prompt, 0) for slot, prompt in enumerate(prompts)))
    expected = np.concatenate([model.logits(prompt) for prompt in prompts])
    for optimised in (False, True):
        engine = engine_of(model.path, model.case.architecture, optimised=optimised)
        assert_logits_match(engine.forward(step), expected)


@pytest.mark.parametrize("case_id", ["qwen3-window-3", "gemma3", "qwen3-moe"])
def test_chunks_and_decodes_equal_one_prefill(
    case_id: str, reference: Callable[[str], ReferenceModel]
) -> None:
    model = reference(case_id)
    prompt = model.prompt()
    engine = engine_of(model.path, model.case.architecture, optimised=True)
    rows = [engine.forward(batch((1, prompt[:11], 0)))]
    rows += [engine.forward(batch((1, prompt[11:17], 11)))]
    rows += [engine.forward(batch((1, prompt[i : i + 1], i))) for i in range(17, len(prompt))]
    assert_logits_match(np.concatenate(rows), model.logits(prompt))


def test_qwen3_next_equals_transformers(tmp_path: Path) -> None:
    path, expected, prompts = _qwen3_next(tmp_path)
    for optimised in (False, True):
        engine = engine_of(path, "qwen3_next", optimised=optimised)
        step = batch((3, prompts[0], 0), (0, prompts[1], 0))
        assert_logits_match(engine.forward(step), np.concatenate(expected))
        engine.forward(batch((1, prompts[0][:7], 0)))
        rows = [
            engine.forward(batch((1, prompts[0][i : i + 1], i))) for i in range(7, len(prompts[0]))
        ]
        assert_logits_match(np.concatenate(rows), expected[0][7:])


def _qwen3_next(folder: Path) -> tuple[Path, list[np.ndarray], list[list[int]]]:
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    torch.manual_seed(7)
    config = Qwen3NextConfig(
        vocab_size=101,
        hidden_size=24,
        intermediate_size=26,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        linear_conv_kernel_dim=4,
        linear_key_head_dim=6,
        linear_value_head_dim=5,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        moe_intermediate_size=10,
        shared_expert_intermediate_size=14,
        num_experts=5,
        num_experts_per_tok=2,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
        mlp_only_layers=[1],
        max_position_embeddings=128,
        rms_norm_eps=0.05,
        attn_implementation="eager",
    )
    model = Qwen3NextForCausalLM(config).eval()
    model.set_experts_implementation("eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                offset = 1.0 if "linear_attn" in name else 0.0
                parameter.copy_(torch.empty_like(parameter).uniform_(-0.5, 0.5) + offset)
            elif parameter.ndim >= 2:
                parameter.copy_(torch.randn_like(parameter) * 1.3 / parameter.shape[-1] ** 0.5)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.6)
    model.save_pretrained(folder)
    prompts = [torch.randint(0, 101, (length,)).tolist() for length in (19, 3)]
    with torch.inference_mode():
        logits = [
            model(torch.tensor([prompt]), use_cache=False).logits[0].numpy() for prompt in prompts
        ]
    return folder, logits, prompts
