"""Ops of the user's own, read from a folder: a Python file for each, its C++ header beside it."""

from qwen3_codegen.own_ops.loading import load_ops

__all__ = ["load_ops"]
