"""Answers that follow a grammar: JSON, a JSON schema, an expression, a Lark grammar, tool calls."""

from qwen3_runtime.structured.compiler import LlguidanceCompiler
from qwen3_runtime.structured.wishes import GRAMMAR_FIELDS, grammar_of_tools, grammar_of_wishes

__all__ = ["GRAMMAR_FIELDS", "LlguidanceCompiler", "grammar_of_tools", "grammar_of_wishes"]
