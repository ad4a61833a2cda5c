"""From one input to the next: edits of bytes, text and JSON that a seeded generator chooses."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Mutator", "words_of"]

NUMBERS = [
    0, 1, 2, 3, 4, 7, 8, 9, 12, 31, 32, 40, 127, 128, 255, 256, 1000, 32767, 65535, 65536, 2**20,
    2**24, 10**9, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1,
]  # fmt: skip
"""Around the ends of every width that a reader could compute in."""

FRAGMENTS = [
    b"\x00", b"\t", b"\r\n", b"\n", b" ", b"  ", b"\xef\xbb\xbf", b"\xff", b"\xc3", b"\xed\xa0\x80",
    "é".encode(), "\u2028".encode(), "\U0001f600".encode(), b"'", b'"', b"*a", b"&a ", b"!!binary ",
    b"!!python/object/apply:os.system [id]", b"%YAML 1.1\n", b"---\n", b"...\n", b": ", b"- ",
    b"? ", b"| ", b"> ", b"<<: ", b"{", b"}", b"[", b"]", b"#", b",", b"(", b")", b"=", b"==",
    b" if ", b" else ", b" and ", b"not ", b" in ", b"**", b"//", b"%", b"lambda: 0", b"\\",
    b"{{", b"}}", b"{%", b"%}", b"|", b"__import__('os')", b".__class__", b"9" * 30, b"9" * 5000,
    b"1e999", b"1e-400", b".nan", b"NaN", b"Infinity", b"-Infinity", b"null", b"true", b"-1", b"0",
    b"none", b"layer", b"expert", b"../../etc/passwd", b"/dev/zero", b"a;b", b"{layer}{layer}",
    b'"\\ud800"', b"\\u0000",
]  # fmt: skip
"""What some reader or language gives a meaning of its own."""

VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 7, 64, 2**31, 2**63, 10**30, 10**400, -0.5, 0.0, 0.1, 1e-320,
    1e300, float("nan"), float("inf"), "", "silu", "full_attention", "__import__('os')", "\x00",
    "\ud800", "x" * 5000, "../../etc/passwd", "float32", "bfloat16", "yarn", "longrope", [], [[]],
    [None, 1], [0], [1.0] * 6, ["full_attention"] * 3, {}, {"": None}, {"rope_type": "yarn"},
    {"rope_type": "linear", "factor": 2.0}, {"type": {}, "rope_theta": []},
]  # fmt: skip
"""Values a JSON parser can give."""

_WORD = re.compile(rb"[A-Za-z_][\w.]{2,40}")
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")


def words_of(seeds: Sequence[bytes]) -> list[bytes]:
    """Returns every name in the seeds once, for edits that put one where another stood."""
    return sorted({word for seed in seeds for word in _WORD.findall(seed)})


class Mutator:
    """Edits of inputs of one format.

    Args:
        seeds: Inputs to take words and pieces from.
    """

    def __init__(self, seeds: Sequence[bytes]) -> None:
        self.seeds = seeds
        self.words = words_of(seeds) or [b"x"]

    def text(self, data: bytes, rng: random.Random) -> bytes:
        """Returns text with one to four edits of characters, words, numbers or lines."""
        edits = (self._splice, self._splice, self._word, self._word, self._number, self._line)
        return self._edited(data, rng, edits)

    def binary(self, data: bytes, rng: random.Random) -> bytes:
        """Returns bytes with one to four edits of bits, integers or pieces."""
        return self._edited(data, rng, (self._bit, self._integer, self._integer, self._splice))

    def json(self, data: bytes, rng: random.Random) -> bytes:
        """Returns JSON with one to three values, keys or levels changed; now and then none."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return self.text(data, rng)
        if rng.random() < 0.15:
            return self.text(data, rng)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            value = self._changed(value, rng, 0)
        try:
            text = json.dumps(value, indent=rng.choice([None, 1]), ensure_ascii=rng.random() < 0.9)
        except (ValueError, RecursionError):  # a number with too many digits to print
            return data
        return text.encode("utf-8", "surrogatepass")

    def _edited(
        self,
        data: bytes,
        rng: random.Random,
        edits: Sequence[Callable[[bytes, random.Random], bytes]],
    ) -> bytes:
        for _ in range(rng.choice([1, 1, 2, 4])):
            data = rng.choice(edits)(data, rng)
        return data

    def _splice(self, data: bytes, rng: random.Random) -> bytes:
        start = rng.randrange(len(data) + 1)
        stop = min(len(data), start + rng.choice([0, 0, 1, 1, 5, 60]))
        other = rng.choice(self.seeds)
        cut = rng.randrange(len(other) + 1)
        piece = rng.choice(
            [
                b"",
                rng.choice(FRAGMENTS),
                rng.choice(FRAGMENTS) * rng.choice([2, 30, 1000]),
                other[cut : cut + rng.randint(0, 80)],
                data[stop : stop + rng.randint(0, 40)],
            ]
        )
        return data[:start] + piece + data[stop:]

    def _word(self, data: bytes, rng: random.Random) -> bytes:
        return self._replaced(_WORD, data, rng, rng.choice(self.words))

    def _number(self, data: bytes, rng: random.Random) -> bytes:
        number = rng.choice([*NUMBERS, -1, 0.5, 1e300, 10**25])
        return self._replaced(_NUMBER, data, rng, str(number).encode())

    @staticmethod
    def _replaced(
        pattern: re.Pattern[bytes], data: bytes, rng: random.Random, piece: bytes
    ) -> bytes:
        found = list(pattern.finditer(data))
        if not found:
            return data + piece
        match = rng.choice(found)
        return data[: match.start()] + piece + data[match.end() :]

    def _line(self, data: bytes, rng: random.Random) -> bytes:
        lines = data.split(b"\n")
        taken = lines.pop(rng.randrange(len(lines)))
        if rng.random() < 0.7:
            lines.insert(rng.randrange(len(lines) + 1), taken)
        if rng.random() < 0.3:
            lines.insert(rng.randrange(len(lines) + 1), b" " * rng.randint(0, 4) + taken.strip())
        return b"\n".join(lines)

    @staticmethod
    def _bit(data: bytes, rng: random.Random) -> bytes:
        if not data:
            return b"\x00"
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]

    @staticmethod
    def _integer(data: bytes, rng: random.Random) -> bytes:
        width = rng.choice([1, 2, 4, 8, 8])
        value = rng.choice([*NUMBERS, rng.randrange(len(data) + 2)]) % (1 << 8 * width)
        at = rng.randrange(max(1, len(data) - width + 1))
        return data[:at] + value.to_bytes(width, "little") + data[at + width :]

    def _changed(self, value: Any, rng: random.Random, depth: int) -> Any:
        """Walks down at random and changes what it comes to."""
        if depth < 8 and value and rng.random() < (0.8 if depth else 0.98):
            if isinstance(value, dict):
                return self._changed_object(dict(value), rng, depth)
            if isinstance(value, list):
                at = rng.randrange(len(value))
                inner = self._changed(value[at], rng, depth + 1)
                return [*value[:at], *([inner] * rng.choice([0, 1, 1, 1, 2])), *value[at + 1 :]]
        if rng.random() < 0.1:
            for _ in range(rng.choice([1, 30, 100, 400])):
                value = rng.choice([[value], {"a": value}])
            return value
        if isinstance(value, int | float) and rng.random() < 0.5:
            return rng.choice([*NUMBERS, -value, 0.5, value + 1 if abs(value) < 1e9 else 0])
        return rng.choice([*VALUES, rng.choice(self.words).decode("ascii")])

    def _changed_object(self, value: dict[str, Any], rng: random.Random, depth: int) -> Any:
        key = rng.choice(list(value))
        action = rng.random()
        if action < 0.1:
            del value[key]
        elif action < 0.25:
            value[rng.choice(self.words).decode("ascii")] = rng.choice([value[key], *VALUES])
        else:
            value[key] = self._changed(value[key], rng, depth + 1)
        return value
