"""What this machine has of what building and running an engine needs."""

from qwen3_codegen.doctor.examination import examine
from qwen3_codegen.doctor.finding import Finding, Status

__all__ = ["Finding", "Status", "examine"]
