"""An emitted engine with a switch at every constant, weight and call.

One compilation holds every small wrong that can be done to the engine's text: an environment
variable chooses the one that is done, so that hundreds of them are tried in seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

VARIABLE = "QWEN3_TEST_WRONG"

_SWITCHES = f"""
#include <cstdlib>
#include <cstring>

namespace {{

// Whether the wrong with this number is to be done.
inline bool wrong(int number) {{
  const char* chosen = std::getenv("{VARIABLE}");
  return chosen != nullptr && std::atoi(chosen) == number;
}}

inline float wrong_float(int number, float value) {{
  return wrong(number) ? (value == 0.0f ? 1.0f : value * 1.25f) : value;
}}

inline size_t wrong_column(int number, size_t first) {{
  return wrong(number) ? (first == 0 ? 1 : first - 1) : first;
}}

// A byte, which no type of a window is narrower than.
inline uint8_t wrong_window(int first, uint8_t window) {{
  return wrong(first) ? window - 1 : wrong(first + 1) ? window + 1 : window;
}}

struct WrongTable {{
  float values[256];
}};

// Each frequency has a number of its own, from `first` on.
inline WrongTable wrong_table(int first, const float* values, size_t count) {{
  WrongTable table;
  for (size_t i = 0; i < count; ++i) {{
    table.values[i] = wrong_float(first + static_cast<int>(i), values[i]);
  }}
  return table;
}}

// Every row one further, the last one first; the elements of a vector likewise. In a copy that is
// never freed: a mapped weight cannot be written.
inline qwen3::Tensor wrong_rows(int number, qwen3::Tensor weight) {{
  if (wrong(number)) {{
    const size_t bytes = weight.num_bytes(), row = bytes / weight.shape[0];
    std::byte* data = new std::byte[bytes];
    std::memcpy(data + row, weight.data, bytes - row);
    std::memcpy(data, weight.data + bytes - row, row);
    weight.data = data;
  }}
  return weight;
}}

// Every expert's matrix is the next one's.
inline std::vector<qwen3::Tensor> wrong_rows(int number, std::vector<qwen3::Tensor> matrices) {{
  if (wrong(number)) std::rotate(matrices.begin(), matrices.begin() + 1, matrices.end());
  return matrices;
}}

}}  // namespace
"""

# Without a choice of experts, their numbers would be whatever lies there: no engine to be run.
_CALL = re.compile(
    r"^  ((?:ops_\.\w+|copy_rows|attention_\d_->run|qwen3::\w+|"
    r"native::(?!ChooseExperts)\w+<[^;]*?>::run)"
    r"\([^;]*\);)$",
    re.MULTILINE,
)
_FLOAT = re.compile(r"(?<!nullptr, )(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?f\b")
_COLUMNS = re.compile(r"\.columns\((\d+), ")
_TABLE = re.compile(r"(rope|angle)_tables\(\s*([^;]+?),\s*(\d+),\s*([^\s,]+)\)(?=;)")
_WINDOW = re.compile(r"/\*window=\*/(\d+)")
_UPLOAD = re.compile(r"(?:upload|bind|bind_each)\(source, [^;]*\)(?=;)")
_NORMALIZE = re.compile(r"/\*normalize=\*/(true|false)")
_SWAPPED = {
    "gate and up": re.compile(r"((?:ops_\.swiglu|native::SwiGlu>::run)\(\w+, )(\w+), (\w+)(?=\);)"),
    "sin and cos": re.compile(r"(?<=positions_)(, )(\S+\.sin), (\S+\.cos)"),
    "keys and values": re.compile(
        r"((?:->run\(\w+, \w+, |AppendKeyValue<[^>]*>::run\(\s*cache_\[layer\], "
        r"sequences\(layer\), ))(\w+), (\w+)"
    ),
}


@dataclass(slots=True)
class Instrumented:
    """Text of ``engine.cpp`` with switches, and what each number does."""

    text: str
    wrongs: dict[int, str] = field(default_factory=dict)

    def add(self, description: str) -> int:
        self.wrongs[len(self.wrongs) + 1] = description
        return len(self.wrongs)


def instrument(engine_cpp: str) -> Instrumented:
    """Puts a switch wherever a constant, a weight or an op of an engine could be wrong."""
    head, opening, body = engine_cpp.partition("\nEngine::Engine(")
    result = Instrumented(body)
    _switch(result, _UPLOAD, "the next row of", "wrong_rows({number}, {0})")
    for what, pattern in _SWAPPED.items():
        swapped = "{1}(wrong({number}) ? {3} : {2}), (wrong({number}) ? {2} : {3})"
        _switch(result, pattern, f"{what} swapped in", swapped)
    _switch_tables(result)
    _switch_windows(result)
    _switch(result, _FLOAT, "another number in", "wrong_float({number}, {0})")
    _switch(result, _NORMALIZE, "the other choice in", "{0} != wrong({number})")
    _switch(result, _COLUMNS, "other columns in", ".columns(wrong_column({number}, {1}), ")
    _switch(result, _CALL, "dropped", "  if (!wrong({number})) {1}")
    includes, namespace, head = head.partition("\nnamespace ")
    result.text = "".join((includes, _SWITCHES, namespace, head, opening, result.text))
    return result


def _switch(result: Instrumented, pattern: re.Pattern[str], what: str, into: str) -> None:
    text = result.text

    def replace(match: re.Match[str]) -> str:
        number = result.add(f"{what}: {_statement(text, match)}")
        return into.format(match.group(0), *match.groups(), number=number)

    result.text = pattern.sub(replace, text)


def _switch_tables(result: Instrumented) -> None:
    def replace(match: re.Match[str]) -> str:
        kind, table, count, factor = match.groups()
        first = len(result.wrongs) + 1
        for index in range(int(count)):
            result.add(f"another frequency {index} of {table}")
        values = f"wrong_table({first}, {table}, {count}).values"
        return f"{kind}_tables({values}, {count}, {factor})"

    result.text = _TABLE.sub(replace, result.text)


def _switch_windows(result: Instrumented) -> None:
    """A window is one number, though the list of windows and several layers say it."""
    for window in sorted(set(map(int, _WINDOW.findall(result.text))) - {0}):
        first = result.add(f"window {window - 1} instead of {window}")
        result.add(f"window {window + 1} instead of {window}")
        switched = f"wrong_window({first}, {window})"
        result.text = re.sub(rf"(?<=/\*window=\*/){window}\b", switched, result.text)
        result.text, lists = re.subn(
            rf"(> windows = \{{[^}}]*?)\b{window}\b", rf"\g<1>{switched}", result.text
        )
        assert lists == ("> windows = {" in result.text)


def _statement(text: str, match: re.Match[str]) -> str:
    """The statement around a match, without the switches that are in it already."""
    start = max(text.rfind(end, 0, match.start()) for end in (";", "{\n", "\n\n", "  // "))
    statement = text[start + 1 : text.index(";", match.start())]
    statement = re.sub(r"wrong_\w+\(\d+, ([^()]*)\)", r"\1", statement)
    statement = re.sub(r"\(wrong\(\d+\) \? \S+ : (\S+)\)", r"\1", statement)
    return " ".join(statement.partition("\n")[2].split()) or " ".join(statement.split())
