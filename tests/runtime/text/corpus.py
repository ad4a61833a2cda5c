"""Texts that tell one tokenizer from another."""

from __future__ import annotations

__all__ = ["HARD_TEXTS"]

HARD_TEXTS: tuple[str, ...] = (
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n \n  \n\t\t\n\r\n\r",
    "Hello, world!",
    " leading and trailing ",
    "tabs\tand\t\tmore   spaces    in     runs",
    "don't I'LL we've THEY'RE she'd I'm o'clock 'tis 'S 'Re 'lL ''''",
    "0 1 12 123 1234 12345 123456789012345 3.14159 1,000,000 0x1F 1e-6 ٤٥٦ ½²",
    "def f(x: int) -> str:\n    return f'{x:>10}'  # comment\n\n\nclass A:\n\tpass\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] << 2; } // C++\n#include <vector>\n",
    "SELECT * FROM t WHERE a>=1 AND b!='x' OR c IS NULL;--",
    '{"key": [1, 2.5, null, true], "nested": {"a": "b\\n"}}',
    "https://example.com/a?b=c&d=%20e#f user@host.org /usr/local/bin ../.. C:\\x\\y",
    "你好，世界。这是一个测试！北京2024年",
    "こんにちは世界 テスト 안녕하세요 세계",
    "Привет, мир! Ελληνικά العربية עברית ह\u093fन\u094dद\u0940 ไทย",
    "naïve café Ångström \u1e9eß \ufb01 İı ǅ",
    "Má problémy, zejména činnosti; gelişim mümkün olsun, điều tiểu культур 中文字幕",
    "nai\u0308ve cafe\u0301 A\u030angstro\u0308m \u1100\u1161\u11a8 decomposed",
    "😀👩\u200d👩\u200d👧👍\U0001f3fd🇫🇷 ❤\ufe0f ☕",
    "\u00a0\u2003\u3000\u200b\ufeff\u202eodd spaces\u2028\u2029",
    "\x00\x01\x07\x1b[31mcontrol\x7f\x85",
    "\U00010348\U0001d54f\U000e0041\U0010ffff �",
    "e\u0301\u0302\u0303\u0304 z\u0351\u036b\u0343\u036a a\u0300\u0301b",
    "!!!???...---===+++***///\\\\\\|||~~~```^^^$$$%%%&&&@@@",
    "(a)[b]{c}<d>\"e\"'f'«g»“h”‘i’…—–",
    "MixedCaseWords camelCase snake_case SCREAMING_CASE kebab-case X Y\u0301 iPhone15Pro",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "The quick brown fox jumps over the lazy dog. " * 8,
    "▁lower one eighth block ▁▁ Ġ Ċ",
    "end with newline\n",
    "end with spaces   ",
    "word\n  indented\n    more\n\n  back\r\n\tdone",
)
