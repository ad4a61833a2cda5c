"""Every reader on thousands of damaged inputs, and on all that ever broke one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.campaign import run_reader
from tests.fuzz.mutation import Mutator
from tests.fuzz.readers import READERS

CORPUS = Path(__file__).parent / "corpus"
SLOW = {"architecture": 400, "model-spec": 600, "device": 1000, "gguf": 1500, "config": 1500}
"""Inputs of readers that take milliseconds for one."""
FEWEST = {"chat-template": 30}
"""Kinds of answers and refusals; of templates 38, and 21 with edits of characters alone."""


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_answers_or_refuses(reader, tmp_path):
    count = SLOW.get(reader, 3000)
    report = run_reader(reader, num_inputs=count, seed=20, out=tmp_path)
    assert report.failures == []
    assert report.facts["inputs"] == count
    assert report.facts["answers"] > 0, "no input was right: the edits are too coarse to get far"
    assert report.facts["outcomes"] > FEWEST.get(reader, 10)
    assert report.facts["memory_mib"] < 100


@pytest.mark.parametrize("reader", [name for name in READERS if (CORPUS / name).is_dir()])
def test_what_once_broke_a_reader(reader, tmp_path):
    files = sorted((CORPUS / reader).iterdir())
    report = run_reader(reader, num_inputs=0, out=tmp_path, files=files)
    assert report.failures == []
    assert report.facts["inputs"] == len(files)


def test_every_folder_of_the_corpus_is_a_reader_s():
    assert {folder.name for folder in CORPUS.iterdir()} <= set(READERS)


@pytest.mark.parametrize("reader", READERS)
def test_a_seed_decides_every_edit(reader):
    seeds = READERS[reader].seeds()
    mutate = READERS[reader].mutate(Mutator(seeds))
    first, again, other = (
        [mutate(seeds[0], random.Random(f"{seed} {index}")) for index in range(20)]
        for seed in (1, 1, 2)
    )
    assert first == again != other
