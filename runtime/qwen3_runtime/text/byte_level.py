"""The printable characters by which byte-level BPE vocabularies write the 256 bytes."""

from __future__ import annotations

__all__ = ["BYTE_OF_CHARACTER", "bytes_of_token"]


def _byte_of_character() -> dict[str, int]:
    """Source: GPT-2's encoder. Printable Latin-1 stands for itself, the rest starts at U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + index): byte for index, byte in enumerate(others)
    }


BYTE_OF_CHARACTER = _byte_of_character()


def bytes_of_token(token: str) -> bytes:
    """Returns the bytes a vocabulary entry stands for; text outside the alphabet is itself."""
    try:
        return bytes([BYTE_OF_CHARACTER[character] for character in token])
    except KeyError:
        return token.encode("utf-8", errors="replace")
