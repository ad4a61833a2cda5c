"""How the next token of a request is chosen and when the request ends."""

from __future__ import annotations

import math
import secrets
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from qwen3_runtime.errors import RequestError

__all__ = ["MAX_LOGPROBS", "SamplingParams"]

_MAX_STOP_STRINGS = 64
_MAX_STOP_CHARS = 1024
_MAX_TOKEN_ID = 2**31 - 1
_MAX_BIASES = 1024
MAX_LOGPROBS = 20
"""Most likeliest tokens that come with a chosen one."""
_FLOATS = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Parameters of one request, checked when made.

    Raises:
        RequestError: A value is of the wrong type or out of range; the message names it.
    """

    max_temperature: ClassVar[float] = 2.0
    """As OpenAI has it: far above, an answer is noise, which seldom ends by itself."""

    temperature: float = 1.0
    """Divides the logits, at most 2; 0 takes the likeliest token."""
    top_p: float = 1.0
    """Keeps the fewest tokens whose probabilities sum to this; 1 keeps all."""
    top_k: int = 0
    """Keeps this many likeliest tokens; 0 and -1 keep all."""
    min_p: float = 0.0
    """Keeps tokens at least this times as likely as the likeliest; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Makes tokens of prompt and answer less likely where above 1, likelier where below."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens the answer has already."""
    frequency_penalty: float = 0.0
    """Subtracted from the logits of tokens of the answer, once for every time they occur."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Added to the logits of tokens, by id; a mapping will do. -100 all but excludes a token."""
    seed: int | None = None
    """Makes the choice repeatable; None draws a new seed for every request."""
    max_tokens: int | None = None
    """Most tokens to generate; None means as many as the context has room for."""
    min_tokens: int = 0
    """Tokens before which no end token or stop token is chosen and no stop string ends."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are not part of it; one string or several."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the answer besides the model's own end tokens."""
    ignore_eos: bool = False
    """Whether to go on past the model's end tokens."""
    logprobs: int | None = None
    """Log-probabilities of the chosen token and so many likeliest ones, at most 20."""
    prompt_logprobs: int | None = None
    """The same of every token of the prompt but the first."""

    def __post_init__(self) -> None:
        hottest = self.max_temperature
        expected = (
            "a finite number >= 0" if hottest == math.inf else f"a number from 0 to {hottest:g}"
        )
        _check_number("temperature", self.temperature, expected, low=0.0, high=hottest)
        _check_number("top_p", self.top_p, "a number above 0 and at most 1", low=0.0, high=1.0)
        if self.top_p == 0.0:
            raise _fault("top_p", self.top_p, "a number above 0 and at most 1")
        _check_number("min_p", self.min_p, "a number from 0 to 1", low=0.0, high=1.0)
        _check_number(
            "repetition_penalty",
            self.repetition_penalty,
            "a number above 0 and at most 10",
            low=1e-6,
            high=10.0,
        )
        for name in ("presence_penalty", "frequency_penalty"):
            _check_number(name, getattr(self, name), "a number from -2 to 2", low=-2.0, high=2.0)
        _check_integer("top_k", self.top_k, low=-1, high=_MAX_TOKEN_ID)
        if self.seed is not None:
            _check_integer("seed", self.seed, low=-(2**63), high=2**64 - 1)
        if self.max_tokens is not None:
            _check_integer("max_tokens", self.max_tokens, low=1, high=_MAX_TOKEN_ID)
        _check_integer("min_tokens", self.min_tokens, low=0, high=_MAX_TOKEN_ID)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise _fault("min_tokens", self.min_tokens, f"at most max_tokens, {self.max_tokens}")
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), low=0, high=MAX_LOGPROBS)
        if not isinstance(self.ignore_eos, bool):
            raise _fault("ignore_eos", self.ignore_eos, "true or false")
        for name in _FLOATS:
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))
        object.__setattr__(self, "stop", _checked_stop(self.stop))
        object.__setattr__(self, "stop_token_ids", _checked_ids(self.stop_token_ids))

    def seed_or_new(self) -> int:
        """Returns the seed, or a new random one, as 64 unsigned bits."""
        return secrets.randbits(64) if self.seed is None else self.seed % 2**64


def _fault(name: str, got: object, expected: str) -> RequestError:
    return RequestError(f"'{name}' is invalid", got=repr(got)[:200], expected=expected)


def _check_number(name: str, value: object, expected: str, *, low: float, high: float) -> None:
    if not isinstance(value, float | int) or isinstance(value, bool):
        raise _fault(name, value, expected)
    if not low <= value <= min(high, sys.float_info.max):  # which a whole number can be beyond
        raise _fault(name, value, expected)


def _check_integer(name: str, value: object, *, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _fault(name, value, f"an integer from {low} to {high}")


def _checked_stop(stop: object) -> tuple[str, ...]:
    expected = f"at most {_MAX_STOP_STRINGS} texts of at most {_MAX_STOP_CHARS} characters"
    values = (stop,) if isinstance(stop, str) else stop
    if values is None:
        return ()
    if not isinstance(values, Iterable) or isinstance(values, bytes | dict):
        raise _fault("stop", stop, expected)
    texts = tuple(values)
    if len(texts) > _MAX_STOP_STRINGS or any(
        not isinstance(text, str) or not text or len(text) > _MAX_STOP_CHARS for text in texts
    ):
        raise _fault("stop", stop, f"{expected}, none of them empty")
    return texts


def _checked_ids(ids: object) -> tuple[int, ...]:
    if ids is None:
        return ()
    if not isinstance(ids, Iterable) or isinstance(ids, str | bytes | dict):
        raise _fault("stop_token_ids", ids, "a list of token ids")
    values = tuple(ids)
    for value in values:
        _check_integer("stop_token_ids", value, low=0, high=_MAX_TOKEN_ID)
    return values


def _checked_bias(bias: object) -> tuple[tuple[int, float], ...]:
    """Pairs of id and number; ids may be text, as JSON has them."""
    expected = f"at most {_MAX_BIASES} numbers from -100 to 100, by token id"
    try:
        given = dict(() if bias is None else bias)  # type: ignore[call-overload] # checked here
    except (TypeError, ValueError):
        raise _fault("logit_bias", bias, expected) from None
    if len(given) > _MAX_BIASES:
        raise _fault("logit_bias", f"{len(given)} numbers", expected)
    checked: dict[int, float] = {}
    for key, value in given.items():
        is_digits = isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 11
        token = int(key) if is_digits else key
        _check_integer("logit_bias", token, low=0, high=_MAX_TOKEN_ID)
        _check_number("logit_bias", value, expected, low=-100.0, high=100.0)
        checked[token] = float(value)
    return tuple(checked.items())
