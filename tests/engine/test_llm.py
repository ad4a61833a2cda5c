"""``LLM`` itself: turns of several threads, and what is said about settings without effect."""

import json
import shutil
import threading

import numpy as np
import pytest

from qwen3_codegen import LLM, SamplingParams
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.paths import modelspecs_dir
from qwen3_runtime.errors import EngineError, RequestError
from tests.reference.models import assert_logits_match

PROMPTS = ([3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8], [1, 6, 1, 8, 0, 3, 3])


@pytest.fixture
def llm(reference):
    with LLM(reference("qwen3-window-3").path, engine="interpreter", max_num_seqs=2) as model:
        yield model


def test_threads_take_turns(llm):
    alone = [llm.logits([prompt])[0] for prompt in PROMPTS]
    found = [None] * len(PROMPTS)
    start = threading.Barrier(len(PROMPTS))

    def ask(index):
        start.wait()
        for _ in range(5):
            found[index] = llm.logits([PROMPTS[index]])[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_vectors_are_pooled_hidden_states(llm):
    for pooling in ("last", "mean"):
        for states, vector in zip(
            llm.hidden_states(PROMPTS), llm.embed(PROMPTS, pooling=pooling), strict=True
        ):
            pooled = states[-1][-1] if pooling == "last" else states[-1].mean(axis=0)
            np.testing.assert_allclose(vector, pooled / np.linalg.norm(pooled), atol=1e-6)


def test_a_vector_of_the_last_token_costs_its_logits_alone(llm, monkeypatch):
    counts = []
    trace = Interpreter.trace

    def counted(engine, batch, names=None):
        counts.append(len(batch.logit_rows))
        return trace(engine, batch, names)

    monkeypatch.setattr(Interpreter, "trace", counted)
    llm.embed(PROMPTS)
    assert sum(counts) == len(PROMPTS)


def test_a_call_within_a_call_is_refused_and_leaves_the_model_usable(llm):
    greedy = SamplingParams(temperature=0.0, max_tokens=2)
    with llm._turn(), pytest.raises(EngineError, match="busy with a call of this very thread"):
        llm.generate([PROMPTS[0]], greedy)
    assert len(llm.generate([PROMPTS[0]], greedy)[0].token_ids) == 2


def test_recommendations_without_effect_are_named(reference, tmp_path):
    folder = shutil.copytree(reference("qwen3-window-3").path, tmp_path / "model")
    recommended = {"typical_p": 0.9, "num_beams": 1, "repetition_penalty": 1.05}
    (folder / "generation_config.json").write_text(json.dumps(recommended), encoding="utf-8")
    with LLM(folder, engine="interpreter") as model:
        assert [note for note in model.notes if "generation_config" in note] == [
            "generation_config: typical_p 0.9 has no effect, sampling does not know it"
        ]
        assert model.default_sampling_params.repetition_penalty == 1.05


def test_the_choice_of_a_longrope_table_is_said(reference):
    for length, chosen in ((20, "short"), (21, "long")):
        path = reference("phi3-longrope-long").path
        with LLM(path, engine="interpreter", max_model_len=length) as model:
            (note,) = [note for note in model.notes if "longrope" in note]
            assert f"the {chosen} factors apply, because max_model_len is {length}" in note


def test_a_system_prompt_of_the_architecture_opens_conversations(reference, tmp_path, monkeypatch):
    folder = shutil.copytree(reference("qwen3-window-3").path, tmp_path / "model")
    architecture = (modelspecs_dir() / "architectures" / "qwen3.yaml").read_text(encoding="utf-8")
    changed = architecture.replace("\nchat:\n", "\nchat:\n  system_prompt: Be brief.\n")
    (tmp_path / "brief.yaml").write_text(changed, encoding="utf-8")
    question = {"role": "user", "content": "Who are you?"}
    heard = []
    with LLM(folder, engine="interpreter", arch=str(tmp_path / "brief.yaml")) as model:
        monkeypatch.setattr(
            model._generator, "chat", lambda messages, params, **_: heard.append(list(messages))
        )
        model.chat([question])
        model.chat([{"role": "system", "content": "Rhyme."}, question])
    assert heard == [
        [{"role": "system", "content": "Be brief."}, question],
        [{"role": "system", "content": "Rhyme."}, question],
    ]


def test_an_architecture_s_sampling_fills_what_the_checkpoint_leaves_open(llm):
    params = llm.default_sampling_params
    assert (params.temperature, params.top_p, params.top_k) == (0.6, 0.95, 20)


def test_token_ids_may_come_as_an_array(llm):
    greedy = SamplingParams(temperature=0.0, max_tokens=3)
    (from_list,) = llm.generate(list(PROMPTS[0]), greedy)
    (from_array,) = llm.generate(np.array(PROMPTS[0]), greedy)
    assert from_array == from_list


# ---- arguments ------------------------------------------------------------------------------


def test_the_interpreter_rounds_no_constant_to_the_checkpoint_s_dtype(reference, tmp_path):
    """Gemma's embedding scale is rounded to the dtype that is computed in: to float32 here."""
    model = reference("gemma3")
    folder = shutil.copytree(model.path, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    prompt = model.prompt()
    for dtype in ("auto", "float32"):
        with LLM(folder, engine="interpreter", dtype=dtype) as llm:
            assert_logits_match(llm.logits([prompt])[0], model.logits(prompt))
            assert llm.spec.dtype.value == "float32"
            note = "the interpreter computes in float32, not in the checkpoint's bfloat16"
            assert llm.notes.count(note) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "f16"])
def test_the_interpreter_refuses_other_dtypes(reference, dtype):
    with pytest.raises(CodegenError, match="the interpreter computes in float32") as caught:
        LLM(reference("qwen3-window-3").path, engine="interpreter", dtype=dtype)
    assert caught.value.expected == "auto or float32"


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"dev": "nvidia"}, "dev nvidia"),
        ({"dev": "nonsense"}, "dev nonsense"),
        ({"infinicore": "0.1.0"}, "infinicore 0.1.0"),
        ({"infinicore_api": "2025-08"}, "infinicore_api 2025-08"),
        ({"activation_dtype": "float32"}, "activation_dtype float32"),
        ({"kv_cache_dtype": "float16"}, "kv_cache_dtype float16"),
        ({"lowering": "native", "isa": "avx2"}, "isa avx2, lowering native"),
    ],
)
def test_the_interpreter_refuses_what_only_compiled_engines_heed(reference, options, got):
    with pytest.raises(CodegenError, match="no use for options of compiled engines") as caught:
        LLM(reference("qwen3-window-3").path, engine="interpreter", **options)
    assert caught.value.got == got


@pytest.mark.parametrize(
    ("key", "value", "config"),
    [
        ("rms_norm_eps", 0.5, 0.5),
        ("rms_norm_eps", np.float32(0.5), 0.5),
        ("rms_norm_eps", "0.5", 0.5),
        ("num_hidden_layers", np.int64(4), 4),
        ("layer_types", ["full_attention"] * 4, ("full_attention",) * 4),
        ("attention_bias", False, False),
    ],
)
def test_overrides_may_be_values(reference, key, value, config):
    path = reference("qwen3-window-3").path
    with LLM(path, engine="interpreter", overrides={key: value}) as llm:
        assert llm.spec.config[key] == config


def test_an_override_changes_the_answer(reference):
    path = reference("qwen3-window-3").path
    answers = []
    for theta in (None, 5.0, "5.0"):
        overrides = None if theta is None else {"rope_theta": theta}
        with LLM(path, engine="interpreter", overrides=overrides) as llm:
            answers.append(llm.logits([PROMPTS[0]])[0])
    assert np.array_equal(answers[1], answers[2])
    assert not np.array_equal(answers[0], answers[1])


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"overrides": {"rope_theta": float("nan")}}, CodegenError, "override of 'rope_theta'"),
        ({"overrides": {"rope_theta": object()}}, CodegenError, "override of 'rope_theta'"),
        ({"overrides": ["rope_theta=5"]}, CodegenError, "map config fields to values"),
        ({"ignore_config_keys": "abc"}, CodegenError, "list of config fields"),
        ({"dtype": None}, CodegenError, "expected: auto, float32, bfloat16 or float16"),
        ({"dtype": 16}, CodegenError, "got:      16"),
        ({"kv_cache_memory": "1G"}, CodegenError, "such as 2GiB"),
        ({"kv_cache_memory": 1.5}, EngineError, "whole number of bytes"),
        ({"max_model_len": 32.0}, EngineError, "max_model_len must be positive"),
    ],
)
def test_arguments_of_other_types_are_refused(reference, arguments, error, says):
    with pytest.raises(error, match=says):
        LLM(reference("qwen3-window-3").path, engine="interpreter", **arguments)


def test_numpy_s_numbers_are_limits(reference):
    path = reference("qwen3-window-3").path
    with LLM(path, engine="interpreter", max_model_len=np.int64(32)) as llm:
        assert llm.engine.max_model_len == 32


# ---- prompts --------------------------------------------------------------------------------

GREEDY = SamplingParams(temperature=0.0, max_tokens=2)


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        (None, "these are no prompts"),
        (5, "these are no prompts"),
        (b"hi", "these are no prompts"),
        ({"a": 1}, "these are no prompts"),
        ([None], "prompt 0: a prompt of token ids is a list of whole numbers"),
        ([1.5], "prompt 0: a prompt of token ids is a list of whole numbers"),
        ([1, 2.5], "prompt 0: a prompt of token ids is a list of whole numbers"),
        ([True, False], "prompt 0: a prompt of token ids is a list of whole numbers"),
        ([[1], b"hi"], "prompt 1: a prompt of token ids is a list of whole numbers"),
        ([[1], {3: 4}], "prompt 1: a prompt of token ids is a list of whole numbers"),
    ],
)
def test_prompts_of_another_kind_are_refused(llm, prompts, says):
    with pytest.raises(RequestError, match=says):
        llm.generate(prompts, GREEDY)
    assert len(llm.generate([1, 2], GREEDY)) == 1


@pytest.mark.parametrize("params", [{"temperature": 0}, [None], [{}], "greedy", 0.5])
def test_sampling_parameters_of_another_kind_are_refused(llm, params):
    with pytest.raises(RequestError, match=r"expected: SamplingParams\(temperature"):
        llm.generate([[1, 2]], params)


@pytest.mark.parametrize("prompts", [None, 5, b"hi"])
def test_logits_of_what_holds_no_prompts(llm, prompts):
    with pytest.raises(RequestError, match="these are no prompts"):
        llm.logits(prompts)


def test_an_engine_that_does_not_fit_the_memory_is_refused_before_it_is_compiled(
    reference, monkeypatch
):
    monkeypatch.setattr("qwen3_runtime.engine.capacity.available_memory", lambda: 100_000_000)
    monkeypatch.setattr("qwen3_codegen.llm_engines.build_in_cache", None)
    with pytest.raises(EngineError, match="does not fit the free memory") as caught:
        LLM(
            reference("qwen3-window-3").path,
            lowering="portable",
            max_model_len=500,
            max_num_batched_tokens=20_000,
        )
    text = str(caught.value)
    assert f"{20_000 * 512 * 2 * 4 / 1e9:.1f} GB masks" in text
    assert text.endswith("hint:     a smaller max_model_len or max_num_batched_tokens")
