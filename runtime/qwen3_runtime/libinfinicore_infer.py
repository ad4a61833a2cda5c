"""``scripts/libinfinicore_infer.py`` of InfiniCore-Infer: the numbers of its devices."""

from __future__ import annotations

from qwen3_runtime.infer import DeviceType
from qwen3_runtime.infer.old_names import refusing

__all__ = ["DeviceType"]

__getattr__ = refusing(__name__)
