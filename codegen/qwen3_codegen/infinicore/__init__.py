"""InfiniCore: its C API as data, generated headers, and installations of the real library."""

from qwen3_codegen.infinicore.api import (
    DEFAULT_RELEASE,
    RELEASES,
    Argument,
    ArgumentKind,
    InfiniCoreApi,
    Operator,
    load_api,
)

__all__ = [
    "DEFAULT_RELEASE",
    "RELEASES",
    "Argument",
    "ArgumentKind",
    "InfiniCoreApi",
    "Operator",
    "load_api",
]
