"""Grammars of requests, followed token by token with llguidance."""

from __future__ import annotations

import llguidance
import numpy as np
from numpy.typing import NDArray

from qwen3_runtime.errors import RequestError
from qwen3_runtime.sampling.grammar import Grammar, GrammarSpec
from qwen3_runtime.structured.wishes import WHITESPACE_PATTERN
from qwen3_runtime.text import Tokenizer

__all__ = ["LlguidanceCompiler"]

_MAX_CHARS = 1 << 18
# The default lets an expression such as ((a{999}){999}){999} hold every stream up for seconds.
_LIMITS = llguidance.LLParserLimits(initial_lexer_fuel=100_000, verbose_errors=False)


class LlguidanceCompiler:
    """Makes the state of a new answer; a ``GrammarCompiler``.

    Args:
        tokenizer: The model's.
        vocab_size: Columns of the logits, which may be more than the tokenizer has tokens.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = llguidance.LLTokenizer(
            _vocabulary(tokenizer, vocab_size),
            n_vocab=vocab_size,
            eos_token=list(tokenizer.eos_token_ids) or None,
        )

    def __call__(self, spec: GrammarSpec) -> Grammar:
        """Compiles a grammar.

        Raises:
            RequestError: It cannot be compiled; the message says why.
        """
        try:
            matcher = llguidance.LLMatcher(
                self._tokenizer, _grammar(spec), log_level=0, limits=_LIMITS
            )
        except (ValueError, TypeError, RecursionError) as error:
            raise _uncompiled(spec, str(error)) from None
        if fault := matcher.get_error() or _first_token_error(matcher):
            raise _uncompiled(spec, fault)
        return _FollowedGrammar(matcher, spec)


def _uncompiled(spec: GrammarSpec, fault: str) -> RequestError:
    return RequestError(f"this {spec.kind} cannot be compiled", where=spec.field, got=fault[:500])


class _ByteLevelVocabulary:
    """Tokens as bytes, for ``llguidance.TokenizerWrapper``, which calls it to encode.

    Given a tokenizer.json, llguidance takes every added token for a control token, so that the
    text ``<tool_call>`` of a grammar could not be said by Qwen's token of that name.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id = tokenizer.bos_token_id
        self.eos_token_id = tokenizer.eos_token_ids[0]
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(vocab_size)]
        self.special_token_ids = sorted(tokenizer.special_ids)

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode("utf-8", "replace"), add_special_tokens=False)


def _vocabulary(tokenizer: Tokenizer, vocab_size: int) -> llguidance.TokenizerWrapper | str:
    if tokenizer.is_byte_level and tokenizer.eos_token_ids:
        return llguidance.TokenizerWrapper(_ByteLevelVocabulary(tokenizer, vocab_size))
    return tokenizer.to_json()


def _grammar(spec: GrammarSpec) -> str:
    if len(spec.text) > _MAX_CHARS:
        raise RequestError(
            f"this {spec.kind} is too long",
            where=spec.field,
            got=f"{len(spec.text)} characters",
            expected=f"at most {_MAX_CHARS}",
        )
    match spec.kind:
        case "json_object":
            return _json_grammar('{"type": "object"}')
        case "json_schema":
            return _json_grammar(spec.text)
        case "regex":
            return llguidance.LLMatcher.grammar_from_regex(spec.text)
        case "lark":
            return llguidance.LLMatcher.grammar_from_lark(spec.text)
    raise RequestError("there is no such kind of grammar", got=spec.kind)


def _json_grammar(schema: str) -> str:
    return llguidance.LLMatcher.grammar_from_json_schema(
        schema, defaults={"whitespace_pattern": WHITESPACE_PATTERN}
    )


def _first_token_error(matcher: llguidance.LLMatcher) -> str:
    """What is too large is noticed no sooner than with a token, and then by the step of others."""
    trial = matcher.deep_copy()
    allowed = np.flatnonzero(
        np.unpackbits(np.frombuffer(trial.compute_bitmask(), np.uint8), bitorder="little")
    )
    if len(allowed):
        trial.consume_token(int(allowed[0]))
    return trial.get_error()


class _FollowedGrammar:
    """Waits for the end of a thought, where one comes first, and holds from then on."""

    def __init__(self, matcher: llguidance.LLMatcher, spec: GrammarSpec) -> None:
        self._matcher = matcher
        self._after = spec.after_token_ids
        self._opening = spec.opening_token_id if spec.after_token_ids else None
        self._last: tuple[int, ...] = ()
        self._is_on = not self._after or self._opening is not None

    def mask(self) -> NDArray[np.uint32] | None:
        """See ``Grammar``."""
        if not self._is_on:
            return None
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        if self._opening is not None:
            bits = bits.copy()
            bits[self._opening // 32] |= np.uint32(1 << self._opening % 32)
        return bits

    def accept(self, token_id: int) -> None:
        """See ``Grammar``."""
        opening, self._opening = self._opening, None
        if opening is not None and token_id == opening:
            self._is_on = False
        elif self._is_on:
            if not self._matcher.consume_token(token_id):
                raise RequestError(
                    "the grammar cannot be followed any further", got=self._matcher.get_error()
                )
        else:
            self._last = (*self._last, token_id)[-len(self._after) :]
            self._is_on = self._last == self._after
