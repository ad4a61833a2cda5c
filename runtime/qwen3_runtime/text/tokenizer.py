"""A checkpoint's tokenizer and chat template behind one small interface."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Backend

from qwen3_runtime.checkpoint.base import Checkpoint
from qwen3_runtime.checkpoint.folder import FolderCheckpoint
from qwen3_runtime.checkpoint.json_file import read_json_object
from qwen3_runtime.checkpoint.mapped_file import refuse_lfs_pointer
from qwen3_runtime.errors import RequestError, TokenizerError
from qwen3_runtime.generation_config import end_token_ids
from qwen3_runtime.text.byte_level import bytes_of_token
from qwen3_runtime.text.chat_template import ChatTemplate
from qwen3_runtime.text.detokenizer import (
    ByteLevelDetokenizer,
    IncrementalDetokenizer,
    WindowDetokenizer,
)

__all__ = ["Tokenizer", "load_tokenizer"]

_SPECIAL_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_SLOW_FILES = ("tokenizer.model", "vocab.json", "spiece.model")
"""Files of tokenizers that transformers converts and ``tokenizers`` alone cannot read."""
_SPACE_MARK = "\u2581"
"""What stands for a space in tokens of SentencePiece."""
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
"""Its tokens of a single byte, where a character has none of its own."""
_MANY_IDS = 1000
"""So many take longer to decode than handing them over does."""


class Tokenizer:
    """Text to token ids and back.

    Safe to share between threads; what ``stream`` returns belongs to one sequence.

    Args:
        backend: The tokenizer proper.
        where: File it came from, for messages.
        special_tokens: Text of ``bos_token``, ``eos_token``, ... as far as they exist.
        eos_token_ids: Every token that ends a text or a turn.
        chat_templates: Jinja sources by name; ``default`` serves unless a request has tools and
            there is one named ``tool_use``.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        where: Path,
        special_tokens: Mapping[str, str],
        eos_token_ids: Iterable[int],
        chat_templates: Mapping[str, str],
    ) -> None:
        self._backend = backend
        self._where = where
        self._special_tokens = dict(special_tokens)
        self._chat_templates = dict(chat_templates)
        self._compiled: dict[str, ChatTemplate] = {}
        self.is_byte_level = isinstance(backend.decoder, decoders.ByteLevel)
        """Whether tokens are bytes, each for itself (GPT-2, Qwen, Llama 3)."""
        decoder = b"" if backend.decoder is None else bytes(backend.decoder.__getstate__())
        self._marks_spaces = _SPACE_MARK.encode() in decoder
        self._has_byte_tokens = b'"ByteFallback"' in decoder
        self.special_ids = frozenset(
            token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if token.special
        )
        """Control tokens, which are no part of a text."""
        self.eos_token_ids = tuple(dict.fromkeys(eos_token_ids))
        """Every token that ends a text or a turn."""
        bos = special_tokens.get("bos_token")
        self.bos_token_id = None if bos is None else backend.token_to_id(bos)
        """The token that begins a text, None where the model has none."""

    @property
    def chat_template(self) -> str | None:
        """Jinja source that serves requests without tools, None where there is none."""
        return self._chat_templates.get("default")

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Returns the token ids of a text; special tokens written in it count as such.

        Raises:
            RequestError: The text is no valid Unicode (half of a surrogate pair).
        """
        try:
            # Unlike `encode`, this lets other threads run: a server's streams, for example.
            (encoding,) = self._backend.encode_batch_fast(
                [text], add_special_tokens=add_special_tokens
            )
        except (TypeError, UnicodeEncodeError) as error:
            raise RequestError("the text cannot be encoded", got=str(error)[:200]) from None
        return list(encoding.ids)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Returns the text of token ids; ids without a token give nothing.

        Raises:
            RequestError: An id is negative or beyond 32 bits.
        """
        try:
            if len(ids) < _MANY_IDS:
                return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens))
            # Unlike `decode`, this lets other threads run.
            (text,) = self._backend.decode_batch([ids], skip_special_tokens=skip_special_tokens)
            return str(text)
        except (OverflowError, TypeError) as error:
            raise RequestError("these are no token ids", got=str(error)[:200]) from None

    def stream(self, skip_special_tokens: bool = True) -> IncrementalDetokenizer:
        """Returns a decoder for one sequence's tokens as they come."""
        if self.is_byte_level:
            return ByteLevelDetokenizer(
                lambda token_id: self.token_bytes(token_id, skip_special_tokens)
            )
        return WindowDetokenizer(
            lambda ids: self.decode(ids, skip_special_tokens),
            lambda token_id: not (skip_special_tokens and token_id in self.special_ids),
        )

    def token_bytes(self, token_id: int, skip_special_tokens: bool = False) -> bytes:
        """Returns the bytes one token stands for; nothing for an id without a token."""
        if skip_special_tokens and token_id in self.special_ids:
            return b""
        token = self._backend.id_to_token(token_id)
        if token is None:
            return b""
        if self.is_byte_level:
            return bytes_of_token(token)
        # Decoded alone, a token of SentencePiece loses its space, and a byte becomes U+FFFD.
        if self._has_byte_tokens and (byte := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        if self._marks_spaces:
            return token.replace(_SPACE_MARK, " ").encode()
        return self.decode([token_id], skip_special_tokens).encode()

    def token_id(self, token: str) -> int | None:
        """Returns the id of a token by its text, None where there is none."""
        found: int | None = self._backend.token_to_id(token)
        return found

    def to_json(self) -> str:
        """Returns the tokenizer in the form of a tokenizer.json."""
        text: str = self._backend.to_str()
        return text

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, object]],
        add_generation_prompt: bool = True,
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        **variables: object,
    ) -> str:
        """Renders a conversation with the model's template.

        Args:
            messages: Records with ``role`` and ``content``.
            add_generation_prompt: Whether to end with the header of the assistant's turn.
            tools: JSON schemas of functions the model may call.
            **variables: What else the template understands, such as ``enable_thinking=False``.

        Raises:
            RequestError: The messages are no conversation the template accepts.
            TokenizerError: The model has no chat template, or it fails.
        """
        return self._template(tools is not None).render(
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            variables={**self._special_tokens, **variables},
        )

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        add_generation_prompt: bool = True,
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        **variables: object,
    ) -> list[int]:
        """Returns the token ids of a rendered conversation.

        The template writes the begin token where the model wants one, so none is added here.

        Raises:
            RequestError: The messages are no conversation the template accepts.
            TokenizerError: The model has no chat template, or it fails.
        """
        text = self.apply_chat_template(messages, add_generation_prompt, tools=tools, **variables)
        return self.encode(text, add_special_tokens=False)

    def _template(self, has_tools: bool) -> ChatTemplate:
        name = "tool_use" if has_tools and "tool_use" in self._chat_templates else "default"
        if name not in self._chat_templates:
            raise TokenizerError(
                "the model has no chat template",
                where=self._where,
                hint="prompt it with plain text instead of messages",
            )
        if name not in self._compiled:
            self._compiled[name] = ChatTemplate(self._chat_templates[name], self._where)
        return self._compiled[name]


# ---- loading --------------------------------------------------------------------------------


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer | None:
    """Returns a checkpoint's tokenizer, None where it has none.

    Raises:
        TokenizerError: A file is damaged, or of a kind that cannot be read.
        CheckpointError: A JSON file beside it is damaged or a git-lfs pointer.
    """
    if isinstance(checkpoint, FolderCheckpoint):
        return _from_folder(checkpoint)
    from qwen3_runtime.checkpoint.gguf_checkpoint import GgufCheckpoint  # imports much

    assert isinstance(checkpoint, GgufCheckpoint)
    return _from_gguf(checkpoint.path, checkpoint.fields, end_token_ids(checkpoint))


def _from_folder(checkpoint: Checkpoint) -> Tokenizer | None:
    folder = checkpoint.path
    if (folder / "tokenizer.json").is_file():
        where = folder / "tokenizer.json"
        backend = _backend_from_file(where)
    elif any((folder / name).is_file() for name in _SLOW_FILES):
        where = next(folder / name for name in _SLOW_FILES if (folder / name).is_file())
        backend = _backend_from_transformers(where)
    else:
        return None
    settings = _optional_json(folder / "tokenizer_config.json")
    _add_missing_tokens(backend, settings, where)
    special = _special_tokens(settings, _optional_json(folder / "special_tokens_map.json"))
    for text in special.values():
        _require_unicode(text, folder)
    return Tokenizer(
        backend,
        where=where,
        special_tokens=special,
        eos_token_ids=_end_tokens(checkpoint, backend, special),
        chat_templates=_chat_templates(folder, settings),
    )


def _backend_from_file(path: Path) -> Backend:
    with path.open("rb") as file:
        refuse_lfs_pointer(path, file.read(64))
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library knows no narrower class
        raise TokenizerError(f"not a tokenizer this can read: {error}", where=path) from None
    backend.no_truncation()
    backend.no_padding()
    return backend


def _backend_from_transformers(path: Path) -> Backend:
    """Converts a slow tokenizer; imports transformers, which takes seconds, only here."""
    try:
        from transformers import AutoTokenizer

        converted: Any = AutoTokenizer.from_pretrained(path.parent, trust_remote_code=False)
        return Backend.from_str(converted.backend_tokenizer.to_str())
    except Exception as error:  # every tokenizer class of transformers fails in its own way
        raise TokenizerError(
            f"transformers cannot convert the tokenizer: {str(error)[:500]}",
            where=path,
            hint="add the model's tokenizer.json, or install what the message names",
        ) from None


def _optional_json(path: Path) -> dict[str, object]:
    return read_json_object(path) if path.is_file() else {}


def _add_missing_tokens(backend: Backend, settings: Mapping[str, object], where: Path) -> None:
    """Adds tokens that only tokenizer_config.json declares, as transformers does."""
    declared = settings.get("added_tokens_decoder")
    if not isinstance(declared, dict):
        return
    for key, token in declared.items():
        text = token.get("content") if isinstance(token, dict) else None
        if not isinstance(text, str) or not text or not key.isdecimal():
            continue
        _require_unicode(text, where)
        if backend.token_to_id(text) is None:
            flags = {
                name: bool(token.get(name, False))
                for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
            }
            backend.add_tokens([AddedToken(text, **flags)])
            if backend.token_to_id(text) != int(key):
                raise TokenizerError(
                    f"tokenizer_config.json adds token '{text[:80]}' at an id it cannot have",
                    where=where,
                    got=int(key),
                    expected=backend.token_to_id(text),
                )


def _require_unicode(token: str, where: Path) -> None:
    """JSON can spell half of a surrogate pair, which no tokenizer takes."""
    try:
        token.encode()
    except UnicodeEncodeError:
        raise TokenizerError(
            "a token is no valid Unicode (half of a surrogate pair)",
            where=where,
            got=ascii(token[:80]),
            hint="tokenizer_config.json or special_tokens_map.json declares it",
        ) from None


def _special_tokens(*sources: Mapping[str, object]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _SPECIAL_NAMES:
        for source in sources:
            token = source.get(f"{name}_token")
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                found.setdefault(f"{name}_token", text)
    return found


def _end_tokens(checkpoint: Checkpoint, backend: Backend, special: Mapping[str, str]) -> list[int]:
    """All end tokens: generation_config's, the config's and the tokenizer's own."""
    own = backend.token_to_id(special["eos_token"]) if "eos_token" in special else None
    return [*end_token_ids(checkpoint), *([] if own is None else [own])]


def _chat_templates(folder: Path, settings: Mapping[str, object]) -> dict[str, str]:
    """Template files win over tokenizer_config.json, as in transformers."""
    extra = folder / "additional_chat_templates"
    files = {"default": folder / "chat_template.jinja"}
    files |= {file.stem: file for file in sorted(extra.glob("*.jinja"))}
    templates = {name: _read_text(file) for name, file in files.items() if file.is_file()}
    if templates:
        return templates
    value = settings.get("chat_template")
    if value is None:
        value = _optional_json(folder / "chat_template.json").get("chat_template")
    if isinstance(value, list):
        entries = [entry for entry in value if isinstance(entry, dict)]
        return {str(entry.get("name")): str(entry.get("template")) for entry in entries}
    return {"default": value} if isinstance(value, str) else {}


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"cannot read the chat template: {error}", where=path) from None


def _from_gguf(
    path: Path, fields: Mapping[str, object], eos_token_ids: Sequence[int]
) -> Tokenizer | None:
    from qwen3_runtime.text.gguf_tokenizer import backend_from_fields

    if "tokenizer.ggml.model" not in fields or fields["tokenizer.ggml.model"] == "none":
        return None
    backend = backend_from_fields(path, fields)
    tokens = fields["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {}
    for name, key in names.items():
        token_id = fields.get(f"tokenizer.ggml.{key}_token_id")
        if type(token_id) is int and 0 <= token_id < len(tokens):
            special[f"{name}_token"] = tokens[token_id]
    prefix = "tokenizer.chat_template"
    templates = {
        "default" if key == prefix else key[len(prefix) + 1 :]: value
        for key, value in fields.items()
        if isinstance(value, str) and (key == prefix or key.startswith(f"{prefix}."))
    }
    return Tokenizer(
        backend,
        where=path,
        special_tokens=special,
        eos_token_ids=eos_token_ids,
        chat_templates=templates,
    )
