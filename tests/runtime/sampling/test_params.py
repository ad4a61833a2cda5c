"""SamplingParams accepts what clients send and names what it refuses; checkpoint defaults."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from qwen3_runtime.checkpoint import Checkpoint, open_checkpoint
from qwen3_runtime.errors import CheckpointError, RequestError
from qwen3_runtime.generation_config import default_sampling_params, end_token_ids
from qwen3_runtime.sampling import SamplingParams


def test_defaults_sample_from_the_whole_distribution() -> None:
    params = SamplingParams()
    assert (params.temperature, params.top_p, params.top_k) == (1.0, 1.0, 0)
    assert (params.seed, params.max_tokens, params.stop, params.stop_token_ids) == (
        None,
        None,
        (),
        (),
    )
    assert not params.ignore_eos


def test_values_are_brought_to_one_form() -> None:
    given: dict[str, Any] = {"temperature": 1, "stop": "\n\n", "stop_token_ids": [1, 2]}
    params = SamplingParams(**given, top_k=-1)
    assert isinstance(params.temperature, float)
    assert (params.stop, params.stop_token_ids) == (("\n\n",), (1, 2))
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")  # type: ignore[arg-type]
    assert SamplingParams(stop=None, stop_token_ids=None).stop == ()  # type: ignore[arg-type]
    assert dataclasses.replace(params, stop=("x",)).stop == ("x",)
    assert hash(params) == hash(dataclasses.replace(params))
    biased = SamplingParams(logit_bias={"5": 1, 7: -2.5})  # type: ignore[arg-type]
    assert biased.logit_bias == ((5, 1.0), (7, -2.5))
    assert pickle.loads(pickle.dumps(biased)) == dataclasses.replace(biased) == biased


def test_fewer_tokens_than_the_least_are_refused() -> None:
    with pytest.raises(RequestError, match="'min_tokens' is invalid"):
        SamplingParams(min_tokens=5, max_tokens=4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1), ("temperature", float("nan")), ("temperature", float("inf")),
        ("temperature", 2.01), ("temperature", 10**400),
        ("temperature", "hot"), ("temperature", True), ("temperature", None),
        ("top_p", 0.0), ("top_p", -0.5), ("top_p", 1.01), ("top_p", float("nan")), ("top_p", "1"),
        ("min_p", -0.1), ("min_p", 1.1), ("min_p", "x"), ("repetition_penalty", 0.0),
        ("repetition_penalty", 10.5), ("presence_penalty", 2.1), ("frequency_penalty", -2.1),
        ("frequency_penalty", float("nan")), ("logit_bias", [1]), ("logit_bias", {"x": 1.0}),
        ("logit_bias", {-1: 1.0}), ("logit_bias", {1: 101}), ("logit_bias", {1: None}),
        ("logit_bias", {1.5: 1}), ("logit_bias", {"9" * 30: 1}), ("logit_bias", "ab"),
        ("logit_bias", dict.fromkeys(range(1025), 1.0)), ("min_tokens", -1), ("min_tokens", 1.5),
        ("logprobs", -1), ("logprobs", 21), ("logprobs", True), ("prompt_logprobs", 21),
        ("top_k", -2), ("top_k", 1.5), ("top_k", True), ("top_k", 2**31),
        ("seed", 1.0), ("seed", 2**64), ("seed", -(2**63) - 1), ("seed", "x"),
        ("max_tokens", 0), ("max_tokens", -5), ("max_tokens", 1.0), ("max_tokens", 2**31),
        ("stop", ["a", ""]), ("stop", [1]), ("stop", 5), ("stop", "x" * 1025), ("stop", b"x"),
        ("stop", ["a"] * 65), ("stop", ""),
        ("stop_token_ids", [-1]), ("stop_token_ids", "12"), ("stop_token_ids", [1.0]),
        ("stop_token_ids", [True]), ("stop_token_ids", 3),
        ("ignore_eos", 1), ("ignore_eos", None),
    ],
)  # fmt: skip
def test_invalid_value_is_named(name: str, value: object) -> None:
    with pytest.raises(RequestError, match=rf"'{name}' is invalid") as caught:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    assert caught.value.expected is not None


def test_seed_is_kept_or_drawn_anew() -> None:
    assert SamplingParams(seed=7).seed_or_new() == 7
    assert SamplingParams(seed=-1).seed_or_new() == 2**64 - 1
    drawn = {SamplingParams().seed_or_new() for _ in range(8)}
    assert len(drawn) == 8
    assert all(0 <= seed < 2**64 for seed in drawn)


# ---- generation_config ----------------------------------------------------------------------


def checkpoint_with(folder: Path, generation: Any, config: Any = None) -> Checkpoint:
    (folder / "config.json").write_text(json.dumps(config or {}))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    safetensors.numpy.save_file({"w": np.zeros(1, np.float32)}, folder / "model.safetensors")
    return open_checkpoint(folder)


def test_recommended_values_become_the_defaults(tmp_path: Path) -> None:
    qwen3 = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "pad_token_id": 1}
    params = default_sampling_params(checkpoint_with(tmp_path, qwen3))
    assert params == SamplingParams(temperature=0.6, top_k=20, top_p=0.95)


def test_the_checkpoint_is_heard_before_what_is_known_of_the_model(tmp_path: Path) -> None:
    known = {"temperature": 0.6, "top_k": 20, "min_p": 0.0}
    found = default_sampling_params(checkpoint_with(tmp_path, {"temperature": 0.2}), known)
    assert found == SamplingParams(temperature=0.2, top_k=20)


def test_do_sample_false_is_greedy_and_silence_changes_nothing(tmp_path: Path) -> None:
    greedy = {"do_sample": False, "temperature": 0.6, "top_p": None}
    assert default_sampling_params(checkpoint_with(tmp_path, greedy)).temperature == 0.0
    assert default_sampling_params(checkpoint_with(tmp_path, {})) == SamplingParams()


@pytest.mark.parametrize("generation", [{"temperature": "hot"}, {"top_p": 7}, {"top_k": 1.5}])
def test_bad_recommendation_names_the_file(tmp_path: Path, generation: Any) -> None:
    with pytest.raises(CheckpointError, match="is invalid") as caught:
        default_sampling_params(checkpoint_with(tmp_path, generation))
    assert str(caught.value.where).endswith("generation_config.json")


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [151645, 151643]}, {"eos_token_id": 151645}, (151645, 151643)),
        ({}, {"eos_token_id": 2}, (2,)),
        ({"eos_token_id": 5}, {"eos_token_id": [6, 5]}, (5, 6)),
        ({}, {}, ()),
        ({"eos_token_id": None}, {}, ()),
    ],
)
def test_end_tokens_of_both_files_are_joined(
    tmp_path: Path, generation: Any, config: Any, expected: tuple[int, ...]
) -> None:
    assert end_token_ids(checkpoint_with(tmp_path, generation, config)) == expected


@pytest.mark.parametrize("value", ["</s>", [1, "x"], -1, 1.5, True, {"id": 1}])
def test_bad_end_token_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match="'eos_token_id' is invalid"):
        end_token_ids(checkpoint_with(tmp_path, {"eos_token_id": value}))
