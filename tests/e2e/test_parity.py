"""Every reference model against transformers: logits of a mixed batch, and 64 greedy tokens."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from qwen3_codegen import LLM, SamplingParams
from qwen3_codegen.compile import CompileOptions, build_model, plan_model
from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import LoweringError
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from tests.reference.cases import CASES
from tests.reference.models import GREEDY_STEPS, ReferenceModel, assert_logits_match
from tests.tiers import REPRESENTATIVES, exhaustive_beyond

# What the portable lowering refuses, and the op that it names.
REFUSED = {"qwen3-moe": "moe", "qwen3-moe-mixed": "moe", "gemma3-softcap": "tanh"}
COMPILED = [case for case in CASES if case.id not in REFUSED]

GREEDY = SamplingParams(temperature=0.0, max_tokens=GREEDY_STEPS, ignore_eos=True)


def assert_parity(llm: LLM, model: ReferenceModel, *, most_bounds: float = 1.0) -> None:
    """All prompts of a case and one across a length bucket, as one batch; then greedy tokens."""
    prompts = [*model.prompts(), model.prompt(length=83, index=3)]
    for prompt, actual in zip(prompts, llm.logits(prompts), strict=True):
        assert_logits_match(actual, model.logits(prompt), most_bounds=most_bounds)
    assert_greedy_parity(llm, model)


def assert_greedy_parity(llm: LLM, model: ReferenceModel) -> None:
    prompts = model.prompts()
    for prompt, output in zip(prompts, llm.generate(prompts, GREEDY), strict=True):
        assert len(output.token_ids) == GREEDY_STEPS
        model.assert_greedy(prompt, output.token_ids)
        assert output.finish_reason == "length"
        assert output.num_prompt_tokens == len(prompt)


@pytest.mark.compile
@pytest.mark.parametrize("case", exhaustive_beyond(REPRESENTATIVES, COMPILED))
def test_embedded_infinicore(case, reference, open_llm):
    model = reference(case)
    assert_parity(open_llm(model.path), model)


@pytest.mark.compile
@pytest.mark.network
@pytest.mark.parametrize("case", exhaustive_beyond(REPRESENTATIVES, COMPILED))
def test_real_infinicore(case, reference, open_llm, real_infinicore):
    model = reference(case)
    # Its sums run over one float, element after element: the tokens must be the same, the logits
    # may lie a little further off.
    assert_parity(open_llm(model.path, infinicore=real_infinicore), model, most_bounds=4.0)


@pytest.mark.compile
@pytest.mark.parametrize("case", CASES, ids=str)
def test_native_kernels(case, reference, open_llm):
    model = reference(case)
    assert_parity(open_llm(model.path, lowering="native"), model)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_interpreter(case, reference, open_llm):
    model = reference(case)
    assert_parity(open_llm(model.path, engine="interpreter"), model)


@pytest.mark.parametrize(("id", "op"), REFUSED.items())
def test_the_portable_lowering_refuses_by_name(id, op, reference, open_llm):
    with pytest.raises(LoweringError, match=rf"architectures/\w+\.yaml:\d+: .*\b{op}\b"):
        open_llm(reference(id).path)


WITHOUT_THE_COMPILER = """
import sys
sys.modules["qwen3_codegen"] = None
sys.path.insert(0, sys.argv[1])
import numpy
engine = __import__(sys.argv[2]).Engine.from_checkpoint(sys.argv[3], show_progress=False)
numpy.save(sys.argv[4], engine.forward([[int(token) for token in sys.argv[5].split(",")]])[0])
"""


@pytest.mark.compile
def test_an_engine_folder_imports_by_itself(reference, tmp_path):
    model = reference("qwen3-gqa-2-tied")
    options = CompileOptions(dtype=DType.F32)
    compiled = plan_model(load_model(str(model.path)), load_device("cpu"), options)
    directory = build_model(compiled, tmp_path, options, lambda text: None).directory
    prompt = ",".join(map(str, model.prompt()))
    rows = tmp_path / "rows.npy"
    command = [sys.executable, "-c", WITHOUT_THE_COMPILER]
    places = [tmp_path, directory.name, model.path, rows, prompt]
    subprocess.run([*command, *map(str, places)], check=True)
    assert_logits_match(np.load(rows), model.logits(model.prompt()))
