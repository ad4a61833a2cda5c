"""Graphs as pictures, laid out here: no program beside this one is needed."""

from qwen3_codegen.drawing.svg import to_svg

__all__ = ["to_svg"]
