"""Other devices (emulated), other releases, half precision, and several engines at once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from qwen3_codegen import LLM, SamplingParams
from qwen3_codegen.errors import InfiniCoreError, LoweringError
from tests.reference.cases import CASES, case_named, stored_in
from tests.reference.models import ReferenceModel, assert_logits_match, forward
from tests.tiers import exhaustive_beyond

pytestmark = pytest.mark.compile

GREEDY = SamplingParams(temperature=0.0, max_tokens=32, ignore_eos=True)


def assert_same_model(llm: LLM, model: ReferenceModel) -> None:
    prompts = model.prompts()
    for prompt, actual in zip(prompts, llm.logits(prompts), strict=True):
        assert_logits_match(actual, model.logits(prompt))
    for prompt, output in zip(prompts, llm.generate(prompts, GREEDY), strict=True):
        assert len(output.token_ids) == GREEDY.max_tokens
        model.assert_greedy(prompt, output.token_ids)


@pytest.mark.parametrize("id", ["qwen3-window-8", "qwen2", "jiuge-fm9g-tied"])
def test_mlu_is_emulated_and_says_so(id, reference, open_llm, capfd):
    model = reference(id)
    llm = open_llm(model.path, dev="mlu")
    captured = capfd.readouterr()
    assert "'cambricon' is emulated on the CPU" in captured.err
    assert captured.out == ""
    device = llm.engine.manifest["device"]
    assert (device["name"], device["emulated"]) == ("cambricon", True)
    assert_same_model(llm, model)


def test_the_cpu_is_not_emulated(reference, open_llm, capfd):
    llm = open_llm(reference("qwen3-window-8").path)
    assert "emulated" not in capfd.readouterr().err
    assert llm.engine.manifest["device"]["emulated"] is False


DEVICES = ("nvidia", "ascend", "metax", "moore", "iluvatar", "kunlun", "hygon", "qy", "ali")


# Each with the release its device file names; ascend keeps matrices transposed.
@pytest.mark.parametrize("dev", exhaustive_beyond(frozenset({"nvidia", "ascend"}), DEVICES))
def test_every_device_runs_emulated(dev, reference, open_llm):
    model = reference("qwen3-window-8")
    llm = open_llm(model.path, dev=dev)
    assert llm.engine.manifest["device"]["name"] == dev
    assert_same_model(llm, model)


# 2025-08 rotates interleaved pairs only, so rows of q and k are moved: with the norms of a head or
# of a whole projection, with biases, with a partial rotation.
@pytest.mark.parametrize("release", ["2025-08", "2026-08"])
@pytest.mark.parametrize(
    "id",
    exhaustive_beyond(
        frozenset({"qwen3-window-8", "olmo2"}),
        ("qwen3-window-8", "qwen2", "olmo2", "phi3-partial-rotary", "qwen3-yarn", "gemma3"),
    ),
)
def test_other_releases(id, release, reference, open_llm):
    model = reference(id)
    llm = open_llm(model.path, infinicore_api=release)
    assert llm.engine.manifest["infinicore"]["release"] == release
    assert_same_model(llm, model)


def cosine(actual: np.ndarray, expected: np.ndarray) -> float:
    """Over all rows."""
    a, b = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


every_half_precision = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
STORED_IN_FLOAT32 = ("qwen3-gqa-7x2", "qwen3-window-8", "qwen2")
PUBLISHABLE = [case.id for case in CASES if case.checkpoint_dtype == "float32"]
# Where values are bfloat16, too, these have 0.9988 to 0.9995, transformers' own 0.9978 to 0.9992.
MAGNIFYING = ("qwen3-linear", "olmo2", "gemma3-softcap", "gemma3-linear", "phi3-longrope-long")
ALWAYS = frozenset((*MAGNIFYING, "qwen3-moe-mixed", "qwen3-window-3", "llama-both-biases"))
STORED_IN_HALF = [
    *exhaustive_beyond(ALWAYS - set(MAGNIFYING), PUBLISHABLE, "float16"),
    *exhaustive_beyond(ALWAYS, PUBLISHABLE, "bfloat16"),
]


@every_half_precision
@pytest.mark.parametrize("id", exhaustive_beyond(frozenset({"qwen3-gqa-7x2"}), STORED_IN_FLOAT32))
@pytest.mark.parametrize(("lowering", "least_cosine"), [("portable", 0.999), ("native", 0.9995)])
def test_half_precision_is_near(lowering, least_cosine, id, dtype, reference, open_llm):
    """Of a checkpoint in float32, the rounding of its weights included."""
    model = reference(id)
    llm = open_llm(model.path, dtype=dtype, lowering=lowering)
    assert_half_precision(llm, model, dtype, least_cosine)


@pytest.mark.parametrize(("id", "dtype"), STORED_IN_HALF)
def test_half_precision_is_near_that_of_the_stored_weights(id, dtype, reference, open_llm):
    """Of a checkpoint as it is published, in the dtype it is computed in.

    The reference has the same weights in float32. Other weights are another model: rounding those
    of qwen3-moe to bfloat16, and nothing else, leaves a cosine of 0.994.
    """
    model = reference(stored_in(case_named(id), dtype))
    llm = open_llm(model.path, dtype=dtype, lowering="native")
    assert_half_precision(llm, model, dtype, 0.9995)


@pytest.mark.parametrize("id", MAGNIFYING)
def test_with_all_else_in_float32_only_the_weights_are_rounded(id, reference, open_llm):
    """What is left is the float32 model of the stored weights, within the bound of float32.

    Gemma's models scale embeddings by a number that is rounded to the dtype of the weights.
    """
    model = reference(stored_in(case_named(id), "bfloat16"))
    wide = {"activation_dtype": "float32", "kv_cache_dtype": "float32"}
    llm = open_llm(model.path, dtype="bfloat16", lowering="native", **wide)
    manifest = llm.engine.manifest
    assert (manifest["dtype"], manifest["activation_dtype"]) == ("bfloat16", "float32")
    assert {group.dtype for group in llm.engine.cache_groups} == {"float32"}
    assert_half_precision(llm, model, "bfloat16", 0.9995)
    expected = copy.deepcopy(model.model)
    embedding = expected.get_input_embeddings()
    if (scale := getattr(embedding, "embed_scale", None)) is not None:
        embedding.embed_scale = scale.to(torch.bfloat16).to(torch.float32)
    prompts = model.prompts()
    for prompt, rows in zip(prompts, llm.logits(prompts), strict=True):
        assert_logits_match(rows, forward(expected, prompt))


def assert_half_precision(llm, model, dtype, least_cosine):
    """As near to float32 as transformers' own model of that dtype."""
    assert llm.engine.manifest["dtype"] == dtype
    ours, theirs, similarity = distances(llm, model, dtype)
    assert similarity >= least_cosine
    assert 0 < ours <= 1.5 * theirs


def distances(llm, model, dtype) -> tuple[float, float, float]:
    """Mean distance from the float32 reference, that of transformers in ``dtype``, our cosine."""
    prompts = model.prompts()
    expected = np.concatenate([model.logits(prompt) for prompt in prompts])
    actual = np.concatenate(llm.logits(prompts))
    assert actual.dtype == np.float32
    half = copy.deepcopy(model.model).to(getattr(torch, dtype))
    theirs = np.concatenate([forward(half, prompt) for prompt in prompts])
    ours, own = (float(np.abs(rows - expected).mean()) for rows in (actual, theirs))
    return ours, own, cosine(actual, expected)


@every_half_precision
def test_of_a_mixture_only_the_weights_are_rounded(dtype, reference, open_llm):
    """What is left is the float32 model of the rounded weights, within the bound of float32.

    A checkpoint in float32 gives the bits of the same one stored in ``dtype``. From its own float32
    logits it is less far than transformers' model; no cosine is asked for, since the rounding of
    weights alone may send a row to another expert.
    """
    model = reference("qwen3-moe")
    rounded = reference(stored_in(model.case, dtype))
    llm, other = (
        open_llm(stored.path, dtype=dtype, lowering="native") for stored in (model, rounded)
    )
    prompts = model.prompts()
    for prompt, rows, same in zip(prompts, llm.logits(prompts), other.logits(prompts), strict=True):
        np.testing.assert_array_equal(rows, same)
        assert_logits_match(rows, rounded.logits(prompt))
    ours, theirs, _ = distances(llm, model, dtype)
    assert 0 < ours < theirs


def test_auto_takes_the_checkpoints_dtype(reference, open_llm):
    llm = open_llm(reference("qwen3-bfloat16").path, dtype="auto")
    assert llm.engine.manifest["dtype"] == "bfloat16"


def test_a_dtype_the_device_lacks(reference, open_llm):
    with pytest.raises(LoweringError, match="'ascend' does not compute in bfloat16"):
        open_llm(reference("qwen3-gqa-4").path, dev="ascend", dtype="bfloat16")


def test_a_dtype_of_values_the_lowering_lacks(reference, open_llm):
    with pytest.raises(LoweringError, match="portable lowering keeps activations") as refused:
        open_llm(reference("qwen3-gqa-4").path, dev="mlu", activation_dtype="float32")
    assert "activation_dtype float32" in str(refused.value)


def test_an_operator_the_device_lacks(reference, open_llm):
    with pytest.raises(LoweringError, match="gelu_tanh needs InfiniCore's mul, which cambricon"):
        open_llm(reference("gemma3").path, dev="mlu")


def test_a_release_without_the_device(reference, open_llm):
    with pytest.raises(InfiniCoreError, match="InfiniCore 2025-08 has no device 'hygon'"):
        open_llm(reference("qwen3-gqa-4").path, dev="hygon", infinicore_api="2025-08")


def test_different_engines_and_the_same_twice_in_one_process(reference, open_llm):
    first, second = reference("qwen3-window-8"), reference("qwen2")
    engines: list[tuple[LLM, ReferenceModel]] = [
        (open_llm(first.path), first),
        (open_llm(second.path), second),
        (open_llm(first.path), first),
        (open_llm(second.path, dev="mlu"), second),
        (open_llm(first.path, dev="mlu"), first),
        (open_llm(first.path, infinicore_api="2025-08"), first),
        (open_llm(first.path, lowering="native"), first),
        (open_llm(second.path, lowering="native"), second),
    ]
    for _ in range(2):
        for llm, model in engines:
            assert_same_model(llm, model)


@pytest.mark.network
def test_embedded_and_real_in_one_process(reference, open_llm, real_infinicore):
    """The embedded library's symbols are hidden, so the real one's do not get in their way."""
    model = reference("qwen3-window-8")
    real = open_llm(model.path, infinicore=real_infinicore)
    embedded = open_llm(model.path)
    emulated = open_llm(model.path, dev="mlu")
    for llm in (embedded, real, emulated, real, embedded):
        assert_same_model(llm, model)


def run_in_threads(*work: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_two_engines_in_two_threads(reference, open_llm):
    models = [reference("qwen3-window-8"), reference("qwen2")]
    for model in models:  # transformers is not asked from threads
        for prompt in model.prompts():
            model.logits(prompt)
            model.assert_greedy(prompt, model.greedy(prompt, GREEDY.max_tokens))
    llms = [open_llm(models[0].path, lowering="native"), open_llm(models[1].path, dev="mlu")]

    def repeat(llm: LLM, model: ReferenceModel) -> Callable[[], None]:
        return lambda: [assert_same_model(llm, model) for _ in range(5)] and None

    run_in_threads(*(repeat(llm, model) for llm, model in zip(llms, models, strict=True)))


def test_one_engine_called_from_two_threads(reference, open_llm):
    """Steps of one engine wait for each other; each call's rows are its own."""
    model = reference("qwen3-gqa-4")
    engine = open_llm(model.path, max_num_seqs=2).engine
    prompts = [model.prompt(length=20, index=30 + index) for index in range(2)]
    expected = [model.logits(prompt) for prompt in prompts]

    def whole_prompt(index: int) -> Callable[[], None]:
        batch = batch_in_slot(prompts[index], index, len(engine.cache_groups))

        def work() -> None:
            for _ in range(50):
                assert_logits_match(engine.forward(batch), expected[index])

        return work

    run_in_threads(whole_prompt(0), whole_prompt(1))


def batch_in_slot(token_ids: list[int], slot: int, num_groups: int):
    """One whole prompt in a slot of its own."""
    from qwen3_runtime.engine.batch import Batch, CachePlaces

    count = len(token_ids)
    places = CachePlaces(slots=np.array([slot], dtype=np.int32))
    return Batch(
        token_ids=np.array(token_ids, dtype=np.int32),
        positions=np.arange(count, dtype=np.int32),
        query_lens=np.array([count], dtype=np.int32),
        seq_lens=np.array([count], dtype=np.int32),
        logit_rows=np.arange(count, dtype=np.int32),
        places=(places,) * num_groups,
    )
