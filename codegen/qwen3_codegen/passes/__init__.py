"""Graph-to-graph rewrites, one job and one file each."""

from qwen3_codegen.passes.pipeline import PIPELINE, PIPELINES, Pass, run_pipeline

__all__ = ["PIPELINE", "PIPELINES", "Pass", "run_pipeline"]
