"""Text to tokens, conversations to prompts, and tokens back to clean text."""

from qwen3_runtime.text.detokenizer import IncrementalDetokenizer
from qwen3_runtime.text.stopping import StopChecker
from qwen3_runtime.text.tokenizer import Tokenizer, load_tokenizer

__all__ = ["IncrementalDetokenizer", "StopChecker", "Tokenizer", "load_tokenizer"]
