"""Chat beyond plain text: what clients send and models answer, thoughts and tool calls included."""

from qwen3_runtime.chat.answer import AnswerDelta, AnswerParser, ToolCallDelta, answer_parser
from qwen3_runtime.chat.messages import template_messages

__all__ = ["AnswerDelta", "AnswerParser", "ToolCallDelta", "answer_parser", "template_messages"]
