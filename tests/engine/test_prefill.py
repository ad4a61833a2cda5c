"""Prompts of token ids are checked before an engine sees them."""

from __future__ import annotations

import numpy as np
import pytest

from qwen3_runtime.engine.prefill import check_token_ids, prompt_list
from qwen3_runtime.errors import RequestError


class Bounds:
    """What the check asks of an engine."""

    vocab_size = 10
    max_model_len = 4


@pytest.mark.parametrize("ids", [[1, 2, 3, 9], (0,), np.array([1, 2]), np.array([3], np.uint8)])
def test_whole_numbers_of_any_kind(ids):
    checked = check_token_ids(Bounds(), ids, 0)
    assert checked == list(ids)
    assert all(type(token) is int for token in checked)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([], "at least one token"),
        ([1] * 5, "maximum context length is 4 tokens"),
        ([1, 10], "outside the vocabulary"),
        ([-1], "outside the vocabulary"),
        ([1.9], "whole numbers"),
        (["1"], "whole numbers"),
        ("12", "whole numbers"),
        ([[1]], "whole numbers"),
        ([None], "whole numbers"),
        (None, "whole numbers"),
        (5, "whole numbers"),
        (b"hi", "whole numbers"),
        ({1: "a"}, "whole numbers"),
        ({1, 2}, "whole numbers"),
        ([True, False], "whole numbers"),
        (np.array([True]), "whole numbers"),
    ],
)
def test_anything_else_is_refused(ids, says):
    with pytest.raises(RequestError, match=says) as caught:
        check_token_ids(Bounds(), ids, 3)
    assert caught.value.where == "prompt 3"


@pytest.mark.parametrize("prompts", [None, 5, 1.5, b"hi", {"a": 1}, {1, 2}])
def test_things_that_hold_no_prompts(prompts):
    with pytest.raises(RequestError, match="these are no prompts") as caught:
        prompt_list(prompts)
    assert caught.value.got == type(prompts).__name__
    assert "a list of token ids" in str(caught.value.expected)


def test_prompts_may_come_in_any_row():
    assert prompt_list(iter([1, 2])) == prompt_list((1, 2)) == [1, 2]
