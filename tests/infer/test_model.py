"""The old engine's classes give what ``LLM`` gives, and say what is wrong in words."""

from __future__ import annotations

import gc
import math
import threading
import weakref

import numpy as np
import pytest
import yaml

from qwen3_codegen import LLM, SamplingParams
from qwen3_codegen.paths import modelspecs_dir
from qwen3_runtime.errors import EngineError, RequestError
from qwen3_runtime.infer import DeviceType, InferTask, JiugeForCauslLM, KVCache, Qwen3ForCausalLM
from qwen3_runtime.infer.devices import device_name
from qwen3_runtime.infer.tasks import OldSamplingParams

PROMPTS = ([3, 1, 4, 1, 5, 9, 2, 6], [27, 18, 28], [16, 180, 33, 98, 87, 49, 200, 1, 2, 3, 4])
NO_END = ()
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)


@pytest.fixture
def model(folder):
    return JiugeForCauslLM(folder, engine="interpreter", max_tokens=128)


@pytest.fixture
def oracle(folder):
    with LLM(folder, engine="interpreter", max_model_len=128) as llm:
        yield llm


def make_task(model, tokens, id=0, *, max_tokens=128, temperature=1.0, topk=1, end_tokens=NO_END):
    task = InferTask(id, tokens, max_tokens, temperature, topk, 1.0, end_tokens)
    task.bind_kvcache(model.create_kv_cache(), 0)
    return task


def play(model, tasks, rounds: int) -> list[list[int]]:
    found = [[] for _ in tasks]
    for _ in range(rounds):
        for task, own, token in zip(tasks, found, model.batch_infer_one_round(tasks), strict=True):
            own.append(token)
            task.next(token)
        model.rounds.check_integrity()
    return found


# ---- rounds ---------------------------------------------------------------------------------


def test_rounds_give_what_llm_gives(model, oracle):
    expected = [list(output.token_ids) for output in oracle.generate(PROMPTS, GREEDY)]
    tasks = [make_task(model, ids, index) for index, ids in enumerate(PROMPTS)]
    assert play(model, tasks, 12) == expected
    assert [task.pos for task in tasks] == [len(ids) + 11 for ids in PROMPTS]


@pytest.mark.compile
def test_rounds_of_a_compiled_engine(folder, llm):
    model = Qwen3ForCausalLM(folder, "cpu", max_tokens=256)
    prompts = [[*ids, *range(n * 40)] for n, ids in enumerate(PROMPTS)]
    expected = [list(output.token_ids) for output in llm.generate(prompts, GREEDY)]
    tasks = [make_task(model, ids, index) for index, ids in enumerate(prompts)]
    assert play(model, tasks, 12) == expected
    for task in tasks:
        task.kvcache().drop(model)
    model.rounds.check_integrity()
    assert model.rounds._scheduler.running == []


def test_a_prompt_may_join_answers_on_their_way(model, oracle):
    expected = [list(output.token_ids) for output in oracle.generate(PROMPTS[:2], GREEDY)]
    first = make_task(model, PROMPTS[0])
    begin = play(model, [first], 5)
    second = make_task(model, PROMPTS[1])
    both = play(model, [second, first], 7)
    assert begin[0] + both[1] == expected[0]
    assert both[0] == expected[1][:7]


def test_a_round_computes_new_tokens_only(model, monkeypatch):
    forward, lengths = model.rounds.engine.forward, []
    monkeypatch.setattr(
        model.rounds.engine,
        "forward",
        lambda batch: lengths.append(len(batch.token_ids)) or forward(batch),
    )
    play(model, [make_task(model, ids, index) for index, ids in enumerate(PROMPTS)], 4)
    assert lengths == [sum(map(len, PROMPTS)), 3, 3, 3]


def test_generate_leaves_kept_caches_alone(model, oracle):
    expected = list(oracle.generate([PROMPTS[0]], GREEDY)[0].token_ids)
    task = make_task(model, PROMPTS[0])
    begin = play(model, [task], 4)[0]
    model.generate("something else", max_steps=9)
    model.perplexity([PROMPTS[1], PROMPTS[2]])
    assert begin + play(model, [task], 8)[0] == expected


def test_there_may_be_more_caches_than_slots(folder, oracle):
    model = Qwen3ForCausalLM(folder, engine="interpreter", max_tokens=128, max_num_seqs=2)
    prompts = [[*PROMPTS[0], n] for n in range(5)]
    expected = [list(output.token_ids[:4]) for output in oracle.generate(prompts, GREEDY)]
    assert play(model, [make_task(model, ids) for ids in prompts], 4) == expected


def test_rounds_of_several_threads_wait_for_each_other(model, oracle):
    expected = [list(output.token_ids) for output in oracle.generate(PROMPTS, GREEDY)]
    found = [None] * len(PROMPTS)

    def work(index):
        task = make_task(model, PROMPTS[index], index)
        found[index] = [token for _ in range(12) for token in _one_round(model, task)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def _one_round(model, task):
    tokens = model.batch_infer_one_round([task])
    task.next(tokens[0])
    return tokens


def test_sampling_is_per_task_and_names_what_is_wrong(model, oracle):
    best = np.argsort(-oracle.logits([PROMPTS[0]])[0][-1])
    seen = set()
    for _ in range(60):
        wide = make_task(model, PROMPTS[0], temperature=50.0, topk=3)
        narrow = make_task(model, PROMPTS[0], temperature=50.0, topk=1)
        tokens = model.batch_infer_one_round([wide, narrow])
        seen.add(tokens[0])
        assert tokens[1] == best[0]
    assert seen == set(best[:3].tolist())
    wrong = make_task(model, PROMPTS[0], "a", topk=2.5)
    with pytest.raises(RequestError, match="task a: 'top_k' is invalid"):
        model.batch_infer_one_round([wrong])


def test_temperature_and_topp_of_zero_are_greedy(model, oracle):
    best = int(oracle.logits([PROMPTS[0]])[0][-1].argmax())
    for temperature, topp in ((0.0, 1.0), (5.0, 0.0)):
        task = InferTask(0, PROMPTS[0], 128, temperature, 0, topp, NO_END)
        for _ in range(8):
            task.bind_kvcache(model.create_kv_cache(), 0)
            assert model.batch_infer_one_round([task]) == [best]


# ---- tasks and caches -----------------------------------------------------------------------


def test_max_tokens_of_a_task_counts_the_prompt(model):
    task = make_task(model, PROMPTS[0], max_tokens=10)
    reasons = []
    while task.finish_reason is None:
        reasons.append(_one_round(model, task))
    assert (task.finish_reason, len(reasons)) == ("length", 10 - len(PROMPTS[0]) + 1)
    with pytest.raises(RequestError, match="the task is finished"):
        model.batch_infer_one_round([task])


@pytest.mark.parametrize("ends", [[5], 5, (4, 5)])
def test_an_end_token_stops_a_task(model, ends):
    task = make_task(model, PROMPTS[0], end_tokens=ends)
    task.next(6)
    assert (task.finish_reason, task.tokens, task.pos) == (None, [6], 8)
    task.next(5)
    assert task.finish_reason == "stop"


def test_a_cache_serves_a_longer_prompt_from_where_it_stands(model, oracle):
    cache = model.create_kv_cache()
    first = InferTask(0, PROMPTS[0], 128, 1.0, 1, 1.0, NO_END)
    first.bind_kvcache(cache, 0)
    tokens = play(model, [first], 3)[0]
    assert cache.tokens == [*PROMPTS[0], *tokens[:2]]
    longer = [*PROMPTS[0], *tokens, 7, 8]
    second = InferTask(1, longer, 128, 1.0, 1, 1.0, NO_END)
    second.bind_kvcache(cache, len(cache.tokens))
    assert second.tokens == [tokens[2], 7, 8]
    expected = list(oracle.generate([longer], GREEDY)[0].token_ids)
    assert play(model, [second], 12)[0] == expected


@pytest.mark.parametrize(
    ("tokens", "pos"), [([3, 1, 5, 1], 3), ([3, 1, 4, 1, 5, 9, 2, 6, 7], 9), ([3, 1], 3), ([3], -1)]
)
def test_a_cache_with_other_tokens_is_refused(model, tokens, pos):
    cache = model.create_kv_cache()
    task = InferTask(0, PROMPTS[0], 128, 1.0, 1, 1.0, NO_END)
    task.bind_kvcache(cache, 0)
    play(model, [task], 1)
    other = InferTask("b", tokens, 128, 1.0, 1, 1.0, NO_END)
    with pytest.raises(RequestError, match="task b: the cache does not hold the first"):
        other.bind_kvcache(cache, pos)


def test_what_a_task_lacks_is_said(model, folder):
    task = InferTask(7, PROMPTS[0], 128, 1.0, 1, 1.0, NO_END)
    with pytest.raises(RequestError, match="task 7: the task has no KV cache"):
        model.batch_infer_one_round([task])
    with pytest.raises(RequestError, match="this is no KV cache"):
        task.bind_kvcache(object(), 0)
    cache = KVCache(model)
    task.bind_kvcache(cache)
    twin = InferTask(8, PROMPTS[1], 128, 1.0, 1, 1.0, NO_END)
    twin.bind_kvcache(cache)
    with pytest.raises(RequestError, match="two tasks share one KV cache"):
        model.batch_infer_one_round([task, twin])
    for ids, says in (([], "at least one token"), ([320], "outside the vocabulary")):
        bad = make_task(model, ids, "x")
        with pytest.raises(RequestError, match=f"(?s)task x.*{says}"):
            model.batch_infer_one_round([bad])
    other = Qwen3ForCausalLM(folder, engine="interpreter", max_tokens=128)
    with pytest.raises(RequestError, match="dropped, or belongs to another model"):
        other.batch_infer_one_round([task])
    cache.drop(model)
    cache.drop(model)
    with pytest.raises(RequestError, match="dropped, or belongs to another model"):
        model.batch_infer_one_round([task])
    assert task.release_kvcache() is cache
    assert model.batch_infer_one_round([]) == []
    model.drop_kv_cache(model.create_kv_cache())
    model.rounds.check_integrity()


# ---- generate, perplexity -------------------------------------------------------------------


def test_generate_ends_where_the_context_does(folder, oracle, capsys):
    model = Qwen3ForCausalLM(folder, engine="interpreter", max_tokens=40)
    text, _ = model.generate("hello", max_steps=500)
    with LLM(folder, engine="interpreter", max_model_len=40) as llm:
        greedy = SamplingParams(temperature=0.0)
        output = llm.chat([{"role": "user", "content": "hello"}], greedy)
    assert (output.finish_reason, text) == ("length", output.text)
    assert capsys.readouterr().out == text + "\n"
    with pytest.raises(RequestError, match="maximum context length is 40 tokens"):
        model.generate("hello" * 20, max_steps=1)
    assert model.rounds._scheduler.running == []


def test_an_end_token_is_no_part_of_the_text(folder, oracle, monkeypatch):
    """Any token may be the end: here the last of eight."""
    message = [{"role": "user", "content": "hello"}]
    whole = oracle.chat(message, SamplingParams(temperature=0.0, max_tokens=8))
    end = whole.token_ids[-1]
    model = JiugeForCauslLM(folder, engine="interpreter", max_tokens=128)
    monkeypatch.setattr(JiugeForCauslLM, "eos_token_id", [end])
    params = SamplingParams(temperature=0.0, max_tokens=8, stop_token_ids=(end,))
    stopped = oracle.chat(message, params)
    assert stopped.finish_reason == "stop"
    assert model.generate("hello", max_steps=8)[0] == stopped.text


def test_a_conversation_through_the_tokenizer_is_that_of_generate(model):
    tokenizer = model.tokenizer
    conversation = [{"role": "user", "content": "hello"}]
    text = tokenizer.apply_chat_template(
        conversation=conversation, add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer.apply_chat_template(conversation, add_generation_prompt=True)
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    assert text.startswith(tokenizer.apply_chat_template(conversation, tokenize=False))
    task = make_task(model, ids, end_tokens=model.eos_token_id)
    (answer,) = play(model, [task], 3)
    assert tokenizer.decode(answer) == model.generate("hello", max_steps=3)[0]
    assert tokenizer.decode(np.int64(answer[0])) == tokenizer.decode(np.array(answer[:1]))


@pytest.mark.parametrize(
    "spelled",
    [
        {"topp_": 0.5, "topk_": 7, "temperature_": 3.0},
        {"topp": 0.5, "topk": 7, "temperature": 3.0},
        {"top_p": 0.5, "top_k": 7, "temperature": 3.0},
    ],
)
def test_sampling_may_be_spelled_three_ways(model, monkeypatch, spelled):
    seen = []
    infer = model.rounds.infer
    monkeypatch.setattr(
        type(model.rounds), "infer", lambda self, turns: seen.extend(turns) or infer(turns)
    )
    model.generate("hello", 2, **spelled)
    assert [turn.params for turn in seen] == [
        OldSamplingParams(temperature=3.0, top_p=0.5, top_k=7)
    ] * len(seen)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"max_steps": 0}, "'max_steps' is invalid"),
        ({"max_steps": "10"}, "'max_steps' is invalid"),
        ({"max_steps": 5, "topk": 2, "top_k": 2}, "given twice"),
        ({"max_steps": 5, "max_tokens": 2}, "no argument 'max_tokens'.*hint: +max_steps"),
        ({"max_steps": 5, "seed": 2}, "no argument 'seed'.*SamplingParams"),
        ({"max_steps": 5, "beams": 2}, "no argument 'beams'.*expected: +topp_, topp, top_p"),
        ({"max_steps": 5, "temperature": float("nan")}, "task 0: 'temperature' is invalid"),
        ({"max_steps": 5, "top_p": 2.0}, "'top_p' is invalid"),
    ],
)
def test_generate_refuses_by_name(model, arguments, says):
    with pytest.raises(RequestError, match=f"(?s){says}"):
        model.generate("hello", **arguments)
    assert model.rounds._scheduler.running == []


def test_a_conversation_is_for_llm(model):
    with pytest.raises(RequestError, match=r"(?s)one message, a text.*LLM\.chat"):
        model.generate([{"role": "user", "content": "hello"}], max_steps=1)


@pytest.mark.parametrize("batch_size", [1, 2, 10, 40])
def test_perplexity_is_that_of_the_logits(model, oracle, batch_size):
    sequences = [*PROMPTS, *([n, *PROMPTS[2]] for n in range(20))]
    losses = []
    for ids, rows in zip(sequences, oracle.logits(sequences), strict=True):
        wide = rows[:-1].astype(np.float64)
        norm = np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1)) + wide.max(-1)
        losses += list(norm - wide[np.arange(len(ids) - 1), ids[1:]])
    found = model.perplexity(sequences, batch_size)
    assert found == pytest.approx(math.exp(np.mean(losses)), rel=1e-6)
    model.rounds.check_integrity()
    assert model.rounds._scheduler.running == []


@pytest.mark.parametrize(
    ("sequences", "batch_size", "says"),
    [
        ([], 10, "at least one sequence"),
        ([[1]], 10, "sequence 0: a sequence cannot be scored"),
        ([[1, 2], [1] * 130], 10, "sequence 1: a sequence cannot be scored"),
        ([[1, 320]], 10, "sequence 0: a token id is outside the vocabulary"),
        ("text", 10, "list of whole numbers"),
        ([[1, 2]], 0, "'batch_size' is invalid"),
    ],
)
def test_perplexity_refuses_by_name(model, sequences, batch_size, says):
    with pytest.raises(RequestError, match=says):
        model.perplexity(sequences, batch_size)


# ---- making and destroying ------------------------------------------------------------------


def test_device_numbers_are_infinicores():
    text = (modelspecs_dir() / "infinicore" / "abi.yaml").read_text(encoding="utf-8")
    newest = yaml.safe_load(text)["releases"]["2026-08"]["devices"]
    assert {device.device: int(device) for device in DeviceType} == newest
    for device in DeviceType:
        assert device_name(device) == device_name(int(device)) == device.device


@pytest.mark.parametrize("device", [11, -1, True, "", 1.0, [0]])
def test_what_is_no_device_is_refused(folder, device):
    with pytest.raises(EngineError, match="there is no such device"):
        Qwen3ForCausalLM(folder, device)


def test_a_device_by_any_of_its_names(folder):
    for device in ("cpu", 0, DeviceType.DEVICE_TYPE_CPU):
        for keyword in ("device", "device_type"):
            opened = Qwen3ForCausalLM(folder, engine="interpreter", **{keyword: device})
            assert opened.max_context_len() == 1024
    with pytest.raises(EngineError, match="the device is given twice"):
        Qwen3ForCausalLM(folder, "cpu", device_type="cpu")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("dev", "device="), ("max_model_len", "max_tokens="), ("quant", "quantization=")],
)
def test_our_own_argument_names_are_pointed_to_the_old_ones(folder, name, hint):
    with pytest.raises(EngineError, match=hint):
        Qwen3ForCausalLM(folder, **{name: "cpu"})


def test_a_destroyed_model_frees_its_engine_and_says_so(folder):
    model = Qwen3ForCausalLM(folder, engine="interpreter", max_tokens=64)
    cache = model.create_kv_cache()
    engine = weakref.ref(model.rounds.engine)
    cache.drop(model)
    model.destroy_model_instance()
    model.destroy_model_instance()
    gc.collect()
    assert engine() is None
    for use in (model.create_kv_cache, model.max_context_len, lambda: model.tokenizer):
        with pytest.raises(EngineError, match="the model was destroyed"):
            use()


def test_a_model_without_a_tokenizer_takes_token_ids(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    model = Qwen3ForCausalLM(tmp_path, engine="interpreter", max_tokens=64)
    assert len(play(model, [make_task(model, PROMPTS[0])], 2)[0]) == 2
    for use in (lambda: model.tokenizer, lambda: model.eos_token_id):
        with pytest.raises(RequestError, match="this checkpoint has no tokenizer"):
            use()
