"""Ids are told apart from paths."""

from __future__ import annotations

import pytest

from qwen3_codegen.hub.model_id import ModelId, model_id_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Qwen/Qwen3-0.6B", ModelId("Qwen/Qwen3-0.6B", "main")),
        ("Qwen/Qwen3-0.6B@v1.0", ModelId("Qwen/Qwen3-0.6B", "v1.0")),
        ("a_b/c.d-e@refs/pr/1", ModelId("a_b/c.d-e", "refs/pr/1")),
        ("Qwen3-0.6B", None),
        ("models/qwen/folder", None),
        ("./Qwen/Qwen3", None),
        ("../Qwen3", None),
        ("~/Qwen3", None),
        ("/models/Qwen3", None),
        ("Qwen/..", None),
        ("Qwen/Qwen3@../../x", None),
        ("models/tiny.gguf", None),
        ("models/tiny.GGUF", None),
        ("models/model.safetensors", None),
        ("specs/mine.yaml", None),
        ("Qwen/", None),
        ("/Qwen", None),
        ("Qwen/Qwen3@", None),
        ("Qwen/Qwen3 8B", None),
        ("Qwen/Qwen３", None),
    ],
)
def test_what_is_an_id(text, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_id_of(text) == expected


def test_what_exists_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Qwen" / "Qwen3-0.6B").mkdir(parents=True)
    assert model_id_of("Qwen/Qwen3-0.6B") is None
    assert model_id_of("Qwen/Qwen3-8B") is not None


def test_a_commit_never_changes():
    assert ModelId("a/b", "0" * 40).is_commit
    assert not ModelId("a/b").is_commit
    assert str(ModelId("a/b")) == "a/b"
    assert str(ModelId("a/b", "x")) == "a/b@x"
