"""Does an engine compute what its model says? Op by op, layer by layer, logits and tokens.

``verify_engine`` is the way in; ``limits.py`` says how far off is too far, and why.
"""

from qwen3_codegen.verification.report import Check, Report, Stage, Status, write_report
from qwen3_codegen.verification.verifying import Request, engine_limits, verify_engine

__all__ = [
    "Check",
    "Report",
    "Request",
    "Stage",
    "Status",
    "engine_limits",
    "verify_engine",
    "write_report",
]
