"""Stop strings: cut at the right character whatever the pieces, never partly shown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_runtime.text import StopChecker


def run(pieces: list[str], stop: list[str], **options: bool) -> tuple[list[str], str | None]:
    checker = StopChecker(stop, **options)
    shown = [checker.add(piece) for piece in pieces]
    return [*shown, checker.finish()], checker.stopped_by


@pytest.mark.parametrize(
    ("pieces", "stop", "shown", "stopped_by"),
    [
        (["Hello", " world"], [], ["Hello", " world", ""], None),
        (["Hello", " world"], ["x"], ["Hello", " world", ""], None),
        (["Hello. ", "END", " no"], ["END"], ["Hello. ", "", "", ""], "END"),
        (["a E", "N", "D b"], ["END"], ["a ", "", "", ""], "END"),
        (["a E", "N", "X b"], ["END"], ["a ", "", "ENX b", ""], None),
        (["a E", "N"], ["END"], ["a ", "", "EN"], None),
        (["xEND"], ["END", "E"], ["x", ""], "E"),
        (["one\n", "\ntwo"], ["\n\n"], ["one", "", ""], "\n\n"),
        (["aab", "aac"], ["aabaac"], ["", "", ""], "aabaac"),
        (["aabaa", "c"], ["aabaac"], ["", "", ""], "aabaac"),
        (["xaa", "b"], ["aab"], ["x", "", ""], "aab"),
        (["aabaab", "aac!"], ["aabaac"], ["aab", "", ""], "aabaac"),
        (["abc"], ["abc", "bc", "c"], ["", ""], "abc"),
        (["ab"], ["", "b"], ["a", ""], "b"),
    ],
)
def test_text_up_to_the_first_stop_string_is_shown(
    pieces: list[str], stop: list[str], shown: list[str], stopped_by: str | None
) -> None:
    assert run(pieces, stop) == (shown, stopped_by)


def test_stop_string_can_be_kept() -> None:
    shown, stopped_by = run(["a E", "ND b"], ["END"], include_stop=True)
    assert ("".join(shown), stopped_by) == ("a END", "END")


def first_complete(text: str, stop: list[str]) -> tuple[str, str | None]:
    """One character at a time: the stop string complete first, the longest of several."""
    for end in range(1, len(text) + 1):
        complete = [one for one in stop if text[:end].endswith(one)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


@settings(max_examples=400, deadline=None)
@given(
    pieces=st.lists(st.text("ab", max_size=4), max_size=12),
    stop=st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
)
def test_result_does_not_depend_on_how_the_text_is_cut(pieces: list[str], stop: list[str]) -> None:
    shown, stopped_by = run(pieces, stop)
    assert ("".join(shown), stopped_by) == first_complete("".join(pieces), stop)


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.text("ab", max_size=3), max_size=10), stop=st.text("ab", min_size=1))
def test_what_is_held_is_no_more_than_needed(pieces: list[str], stop: str) -> None:
    checker, text, shown = StopChecker([stop]), "", ""
    for piece in pieces:
        text += piece
        shown += checker.add(piece)
        if checker.stopped_by is None:
            held = text[len(shown) :]
            assert stop.startswith(held)
            assert len(held) < len(stop)


def test_a_stop_string_that_ends_too_early_is_text_and_one_that_ends_later_is_not() -> None:
    checker = StopChecker(["de"])
    assert checker.add("de", may_stop=False) == "de"
    assert checker.add("abcd", may_stop=False) == "abc"
    assert checker.stopped_by is None
    assert checker.add("e") == ""
    assert checker.stopped_by == "de"
