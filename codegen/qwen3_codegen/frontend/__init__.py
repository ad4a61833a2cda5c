"""Graph stage: ``ModelSpec`` in, ``Graph`` out; no optimisation."""

from qwen3_codegen.frontend.build_graph import build_graph

__all__ = ["build_graph"]
