"""Which ops a device carries out, with which operators, or why not: asked of the planner itself."""

from qwen3_codegen.support.answers import Answer, DeviceAnswers, ask_device, ask_model
from qwen3_codegen.support.uses import OpUse, sample_uses

__all__ = ["Answer", "DeviceAnswers", "OpUse", "ask_device", "ask_model", "sample_uses"]
