"""Emitted sources of a few tiny models, compared with files; ``--update-golden`` rewrites those."""

from __future__ import annotations

import shutil

import pytest

from tests.emission.golden import FEATURES, FOLDER, kept


@pytest.mark.parametrize("case_id", FEATURES)
def test_sources_are_the_golden_ones(case_id, pytestconfig):
    folder, files = FOLDER / case_id, kept(case_id)
    if pytestconfig.getoption("update_golden"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    golden = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert sorted(files) == sorted(golden)
    for name, text in files.items():
        assert text.splitlines() == golden[name].splitlines(), f"{name}: --update-golden?"


def test_there_is_nothing_else():
    assert {path.name for path in FOLDER.iterdir()} == set(FEATURES)
