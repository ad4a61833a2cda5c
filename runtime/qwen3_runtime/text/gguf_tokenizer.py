"""A tokenizer from a GGUF header, equal to the tokenizer.json it was converted from.

A header holds the vocabulary, token kinds and merges or scores; how text is cut before merging it
only names (``tokenizer.ggml.pre``). What each name means is a row here, taken from that model's
published tokenizer.json; a name without a row is an error, because a wrong cut gives token ids the
model never saw and no other sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from qwen3_runtime.errors import TokenizerError

__all__ = ["PRE_TOKENIZERS", "backend_from_fields"]

_T = TypeVar("_T")
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
"""Token kinds of ``tokenizer.ggml.token_type``."""
_SPACE = "\u2581"

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"


def _words(letters: str, digits: str, others: str) -> str:
    return rf"{letters}|{digits}| ?{others}|{_SPACES}"


_PUNCTUATION = r"[^\s\p{L}\p{N}]+[\r\n]*"
_QWEN2 = _words(rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+", r"\p{N}", _PUNCTUATION)
_LLAMA3 = _words(rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+", r"\p{N}{1,3}", _PUNCTUATION)
_QWEN35 = _words(
    rf"{_CONTRACTIONS}|{_BEFORE}[\p{{L}}\p{{M}}]+", r"\p{N}", r"[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
)
_TEKKEN = _words(
    rf"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*",
    r"\p{N}",
    r"[^\s\p{L}\p{N}]+[\r\n/]*",
)
_GPT4O = _words(
    rf"{_BEFORE}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_BEFORE}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?",
    r"\p{N}{1,3}",
    r"[^\s\p{L}\p{N}]+[\r\n/]*",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTokenizer:
    """How one ``pre`` cuts text into the pieces that are merged on their own."""

    pattern: str | None = None
    """What is one piece; None for GPT-2's own rule."""
    single_digits: bool = False
    """Whether every digit is cut out first."""
    nfc: bool = False
    """Whether text is composed (Unicode NFC) before all else."""
    ignore_merges: bool = False
    """Whether a piece that is a token needs no merges."""
    adds_bos: bool = False
    """Whether a begin token is added where the header does not say."""


_GPT2 = PreTokenizer()
_CODE = PreTokenizer(single_digits=True)
_LLAMA3_ROW = PreTokenizer(pattern=_LLAMA3, ignore_merges=True, adds_bos=True)

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "gpt-2": _GPT2,
    "phi-2": _GPT2,
    "llama-bpe": _LLAMA3_ROW,
    "llama3": _LLAMA3_ROW,
    "llama-v3": _LLAMA3_ROW,
    "dbrx": PreTokenizer(pattern=_LLAMA3),
    "smaug-bpe": PreTokenizer(pattern=_LLAMA3),
    "qwen2": PreTokenizer(pattern=_QWEN2, nfc=True),
    "qwen35": PreTokenizer(pattern=_QWEN35, nfc=True),
    "smollm": _CODE,
    "starcoder": _CODE,
    "refact": _CODE,
    "command-r": PreTokenizer(single_digits=True, nfc=True, adds_bos=True),
    "tekken": PreTokenizer(pattern=_TEKKEN, ignore_merges=True, adds_bos=True),
    "gpt-4o": PreTokenizer(pattern=_GPT4O),
}
"""Rows by ``tokenizer.ggml.pre``."""


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    path: Path
    tokens: list[str]
    kinds: list[int]

    def of_kind(self, *kinds: int) -> dict[str, int]:
        """Returns ids by token; the first of two equal tokens counts."""
        found: dict[str, int] = {}
        for index, (token, kind) in enumerate(zip(self.tokens, self.kinds, strict=True)):
            if kind in kinds:
                found.setdefault(token, index)
        return found

    def used(self) -> dict[str, int]:
        """Returns ids by token without the rows that only pad the embedding."""
        return self.of_kind(_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE)


def backend_from_fields(path: Path, fields: Mapping[str, object]) -> Backend:
    """Builds a tokenizer.

    Args:
        path: The GGUF file, for messages.
        fields: Its header fields.

    Raises:
        TokenizerError: The model or ``pre`` is unknown, a field is missing, or they contradict.
    """
    vocabulary = _vocabulary(path, fields)
    model = fields.get("tokenizer.ggml.model")
    builders = {"gpt2": _byte_level, "llama": _sentencepiece}
    if not isinstance(model, str) or model not in builders:
        raise _fault(path, "model", model, " or ".join(builders))
    try:
        backend, vocabulary, adds_bos = builders[model](vocabulary, fields)
        _add_tokens(backend, vocabulary)
        _add_post_processor(backend, vocabulary, fields, adds_bos)
    except TokenizerError:
        raise
    except Exception as error:  # the library reports a bad vocabulary by a bare Exception
        raise TokenizerError(f"the GGUF tokenizer cannot be built: {error}", where=path) from None
    return backend


def _fault(path: Path, key: str, got: object, expected: object) -> TokenizerError:
    return TokenizerError(
        f"header field 'tokenizer.ggml.{key}' is missing or unknown",
        where=path,
        got=repr(got)[:200],
        expected=expected,
    )


def _vocabulary(path: Path, fields: Mapping[str, object]) -> _Vocabulary:
    tokens = _list_of(path, fields, "tokens", str)
    if "tokenizer.ggml.token_type" in fields:
        kinds = _list_of(path, fields, "token_type", int)
    else:
        kinds = [_NORMAL] * len(tokens)
    if len(kinds) != len(tokens):
        raise _fault(path, "token_type", f"{len(kinds)} entries", f"{len(tokens)}, one per token")
    return _Vocabulary(path, tokens, kinds)


def _list_of(path: Path, fields: Mapping[str, object], key: str, kind: type[_T]) -> list[_T]:
    values = fields.get(f"tokenizer.ggml.{key}")
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise _fault(path, key, type(values).__name__, f"a list of {kind.__name__}")
    return values


# ---- byte-level BPE -------------------------------------------------------------------------


def _byte_level(
    vocabulary: _Vocabulary, fields: Mapping[str, object]
) -> tuple[Backend, _Vocabulary, bool]:
    pre = fields.get("tokenizer.ggml.pre")
    if not isinstance(pre, str) or pre not in PRE_TOKENIZERS:
        raise _fault(vocabulary.path, "pre", pre, ", ".join(PRE_TOKENIZERS))
    row = PRE_TOKENIZERS[pre]
    merges = _merges(vocabulary.path, _list_of(vocabulary.path, fields, "merges", str))
    backend = Backend(
        BPE(vocabulary.used(), merges, ignore_merges=row.ignore_merges, fuse_unk=False)
    )
    if row.nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(_cuts(row))
    backend.decoder = decoders.ByteLevel()
    return backend, vocabulary, row.adds_bos


def _cuts(row: PreTokenizer) -> list[pre_tokenizers.PreTokenizer]:
    cuts: list[pre_tokenizers.PreTokenizer] = []
    if row.single_digits:
        cuts.append(pre_tokenizers.Digits(individual_digits=True))
    if row.pattern is not None:
        cuts.append(pre_tokenizers.Split(Regex(row.pattern), behavior="isolated"))
    return [
        *cuts,
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=row.pattern is None),
    ]


def _merges(path: Path, lines: Sequence[str]) -> list[tuple[str, str]]:
    merges = []
    for line in lines:
        left, found, right = line.partition(" ")
        if not found or not left or not right or " " in right:
            raise _fault(path, "merges", line, "two tokens with a space between")
        merges.append((left, right))
    return merges


# ---- SentencePiece --------------------------------------------------------------------------


def _sentencepiece(
    vocabulary: _Vocabulary, fields: Mapping[str, object]
) -> tuple[Backend, _Vocabulary, bool]:
    scores = _list_of(vocabulary.path, fields, "scores", float)
    if len(scores) != len(vocabulary.tokens):
        raise _fault(vocabulary.path, "scores", f"{len(scores)} entries", "one per token")
    vocabulary = _with_space_pieces(vocabulary)
    if str(fields.get("general.architecture")).startswith("gemma"):
        # Gemma's pieces are numbered in the order they merge; its scores say something else.
        scores = [-float(index) for index in range(len(scores))]
    mergeable = vocabulary.of_kind(_NORMAL)
    unknown = next(iter(vocabulary.of_kind(_UNKNOWN)), None)
    backend = Backend(
        BPE(
            vocabulary.used(),
            _merges_by_score(mergeable, scores),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    add_prefix = fields.get("tokenizer.ggml.add_space_prefix", True) is not False
    replace = normalizers.Replace(" ", _SPACE)
    prepend = normalizers.Prepend(_SPACE)
    backend.normalizer = normalizers.Sequence([prepend, replace]) if add_prefix else replace
    steps: list[decoders.Decoder] = [
        decoders.Replace(_SPACE, " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
    ]
    if add_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(steps)
    return backend, vocabulary, True


def _with_space_pieces(vocabulary: _Vocabulary) -> _Vocabulary:
    """Undoes the converter's spelling of runs of spaces, in Gemma pieces like any other."""
    tokens, kinds = list(vocabulary.tokens), list(vocabulary.kinds)
    for index, token in enumerate(tokens):
        if kinds[index] == _USER_DEFINED and token and not token.strip(" "):
            tokens[index], kinds[index] = _SPACE * len(token), _NORMAL
    return _Vocabulary(vocabulary.path, tokens, kinds)


def _merges_by_score(ids: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to make a token of two others; the likelier token first.

    SentencePiece merges the pair whose result scores highest. Equal scores go by id, and the ways
    to make one token by the ids of its parts, as in the published tokenizer.json files, which were
    derived from the same scores.
    """
    found = []
    for token, token_id in ids.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                key = (-scores[token_id], token_id, ids[left], ids[right])
                found.append((key, (left, right)))
    return [merge for _, merge in sorted(found)]


# ---- special tokens -------------------------------------------------------------------------


def _add_tokens(backend: Backend, vocabulary: _Vocabulary) -> None:
    """Control tokens are special (hidden when decoded), user-defined ones only never cut."""
    special = vocabulary.of_kind(_CONTROL, _UNKNOWN)
    whole = vocabulary.of_kind(_USER_DEFINED)
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in special if token]
    )
    backend.add_tokens([AddedToken(token, normalized=False) for token in whole if token])


def _add_post_processor(
    backend: Backend, vocabulary: _Vocabulary, fields: Mapping[str, object], adds_bos: bool
) -> None:
    defaults = {"bos": adds_bos, "eos": False}
    ids: dict[str, int] = {}
    for name, default in defaults.items():
        token_id = fields.get(f"tokenizer.ggml.{name}_token_id")
        wanted = fields.get(f"tokenizer.ggml.add_{name}_token", default)
        if wanted and type(token_id) is int and 0 <= token_id < len(vocabulary.tokens):
            ids[name] = token_id
    if not ids:
        return
    tokens = {name: vocabulary.tokens[token_id] for name, token_id in ids.items()}
    order = [tokens.get("bos"), "$A", tokens.get("eos")]
    backend.post_processor = processors.TemplateProcessing(
        single=[piece for piece in order if piece is not None],
        special_tokens=[(tokens[name], ids[name]) for name in ids],
    )
