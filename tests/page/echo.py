"""An engine that says what it was asked, so that a test decides what the model answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from qwen3_runtime.serving import LoadedEngine
from qwen3_runtime.text import Tokenizer
from tests.engine.toy_engine import ToyEngine
from tests.serving.loading import loaded

USER, ASSISTANT, SYSTEM, EOS = range(256, 260)
MARKS = ("<user>", "<assistant>", "<system>", "<eos>")
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def echo_tokenizer() -> Tokenizer:
    """One token per byte, and a mark before each turn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(mark, special=True) for mark in MARKS])
    return Tokenizer(
        backend,
        where=Path("echo"),
        special_tokens={"eos_token": "<eos>"},
        eos_token_ids=[EOS],
        chat_templates={"default": TEMPLATE},
    )


class EchoEngine(ToyEngine):
    """Repeats the last question, read from its cache."""

    vocab_size = 260

    @staticmethod
    def next_token(tokens: Sequence[int]) -> int:
        """The byte of the question that the answer has not said yet."""
        end = len(tokens) - 1 - tokens[::-1].index(ASSISTANT) if ASSISTANT in tokens else -1
        if end < 0:
            return EOS
        start = end - tokens[:end][::-1].index(USER)
        num_said = len(tokens) - end - 1
        return tokens[start + num_said] if start + num_said < end else EOS


@dataclass(frozen=True)
class EchoLoader:
    """Loads the engine; each step takes ``step_seconds``."""

    step_seconds: float = 0.0
    max_model_len: int = 2000
    description: Mapping[str, object] = field(default_factory=dict)

    def __call__(self, notify: Callable[[str], None]) -> LoadedEngine:
        engine = EchoEngine(1000, max_model_len=self.max_model_len, max_num_batched_tokens=2048)
        facts = {"kv_cache_bytes": 1_500_000_000, "description": self.description}
        return loaded(engine, self.step_seconds, **facts)
