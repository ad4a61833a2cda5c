"""Graph-to-graph rewrites, one job and one file each."""

from qwen3_codegen.passes.pipeline import PIPELINE, Pass, run_pipeline

__all__ = ["PIPELINE", "Pass", "run_pipeline"]
