"""An engine that says what its prompt tells it to, driven through the whole real stack.

A prompt holds ``<|say|>text<|said|>``; the engine's logits then favour the tokens of the text, one
after another, and at last the end of the turn. It reads the tokens back from the cache it was
given, as ``tests/engine/toy_engine.py`` does, so a wrong place in the cache gives another answer.
What a grammar forbids it does not say; it then likes whatever ends something.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from qwen3_runtime.engine.batch import Batch, FloatRows
from qwen3_runtime.errors import CheckpointError
from qwen3_runtime.serving import LoadedEngine
from qwen3_runtime.serving.messages import EngineFacts
from qwen3_runtime.serving.worker import Embedder
from qwen3_runtime.structured import LlguidanceCompiler
from qwen3_runtime.text import Tokenizer
from tests.engine.toy_engine import ToyEngine
from tests.server.qwen import END, SAID, SAY, qwen_tokenizer

VOCAB = 272
HEADER = "assistant\n"
SHUT = "<think>\n\n</think>\n\n"
_LIKED = '"}]0:,{<tool_call>'


class ScriptedEngine(ToyEngine):
    """Paged; see above."""

    vocab_size = VOCAB

    def __init__(self, tokenizer: Tokenizer, step_seconds: float, **options: int) -> None:
        super().__init__(**options)
        self._say, self._said, self._end, self._start = (
            tokenizer.token_id(text) for text in (SAY, SAID, END, "<|im_start|>")
        )
        self._header, self._shut = (
            tokenizer.encode(text, add_special_tokens=False) for text in (HEADER, SHUT)
        )
        self._base = np.zeros(VOCAB, np.float32)
        for rank, token in enumerate(reversed(tokenizer.encode(_LIKED))):
            self._base[token] = 1.0 + rank / 10
        self._base[self._end] = 1.5
        self._step_seconds = step_seconds

    def forward(self, batch: Batch) -> FloatRows:
        time.sleep(self._step_seconds)
        return super().forward(batch)

    def logits_after(self, tokens: Sequence[int]) -> FloatRows:
        logits = self._base.copy()
        script, num_said = self._script(list(tokens))
        logits[script[num_said] if num_said < len(script) else self._end] = 20.0
        return logits

    def _script(self, tokens: list[int]) -> tuple[list[int], int]:
        """What is to be said, and how many tokens of it have been."""
        if self._said not in tokens:
            return [], 0
        said = len(tokens) - 1 - tokens[::-1].index(self._said)
        if self._say not in tokens[:said]:
            return [], 0
        say = said - 1 - tokens[:said][::-1].index(self._say)
        script, rest = tokens[say + 1 : said], tokens[said + 1 :]
        if self._start in rest:
            turn = len(rest) - rest[::-1].index(self._start)
            rest = rest[turn + len(self._header) :]
        if rest[: len(self._shut)] == self._shut != script[: len(self._shut)]:
            rest = rest[len(self._shut) :]
        return script, len(rest)


def _slowly(embed: Embedder, seconds: float, token_ids: Sequence[int]) -> FloatRows:
    time.sleep(seconds)
    return embed(token_ids)


@dataclass(frozen=True)
class ScriptedLoader:
    """Loads it in the engine's process."""

    step_seconds: float = 0.0
    load_seconds: float = 0.0
    fails: str | None = None
    embeds: bool = True
    embed_seconds: float = 0.0
    fails_at: tuple[int, ...] = ()
    options: dict[str, int] = field(default_factory=dict)

    def __call__(self, notify: Callable[[str], None]) -> LoadedEngine:
        notify("reading the script")
        time.sleep(self.load_seconds)
        if self.fails is not None:
            raise CheckpointError(self.fails, where="script.safetensors")
        tokenizer = qwen_tokenizer()
        options = {
            "num_blocks": 1200,
            "max_model_len": 2048,
            "max_num_batched_tokens": 2048,
            **self.options,
        }
        engine = ScriptedEngine(tokenizer, self.step_seconds, **options)
        engine.fails_at = set(self.fails_at)
        facts = EngineFacts(
            max_model_len=engine.max_model_len,
            max_num_seqs=engine.max_num_seqs,
            vocab_size=VOCAB,
            num_blocks=engine.num_blocks,
            kv_cache_bytes=0,
            description={"engine": "scripted"},
            can_embed=self.embeds,
        )
        compiler = LlguidanceCompiler(tokenizer, VOCAB)
        return LoadedEngine(
            engine=engine,
            facts=facts,
            compile_grammar=compiler,
            embed=partial(_slowly, counts, self.embed_seconds) if self.embeds else None,
        )


def counts(token_ids: Sequence[int]) -> FloatRows:
    """How often each token occurs, as a vector of length 1."""
    vector = np.bincount(token_ids, minlength=VOCAB).astype(np.float32)
    return vector / np.linalg.norm(vector)
