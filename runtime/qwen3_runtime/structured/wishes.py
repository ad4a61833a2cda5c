"""From what a request wishes of its answer's form to a grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from qwen3_runtime.chat.hermes import TOOL_END, TOOL_START
from qwen3_runtime.errors import RequestError
from qwen3_runtime.sampling.grammar import GrammarSpec

__all__ = ["GRAMMAR_FIELDS", "WHITESPACE_PATTERN", "grammar_of_tools", "grammar_of_wishes"]

WHITESPACE_PATTERN = r"[ \t\n\r]{0,100}"
"""Between parts of JSON, unless a schema has its own: small models fill whole answers with it."""

_KINDS = {"regex": "regex", "grammar": "lark", "json": "json_schema", "choice": "choice"}
_EXTENSIONS = {f"guided_{name}": kind for name, kind in _KINDS.items()}
"""vLLM's names of request fields, and the kinds they stand for."""
GRAMMAR_FIELDS = {"response_format", "structured_outputs", *_EXTENSIONS}
"""Fields of a request that ``grammar_of_wishes`` reads."""


def grammar_of_wishes(
    request: Mapping[str, object], after_token_ids: Sequence[int] = ()
) -> GrammarSpec | None:
    """Returns the grammar of ``response_format`` or of an extension, None without a wish.

    ``response_format`` is OpenAI's (``text``, ``json_object``, ``json_schema``), or
    ``{"type": "regex", "regex": ...}`` and ``{"type": "grammar", "grammar": ...}`` (Lark); the
    extensions are vLLM's ``guided_json``, ``guided_regex``, ``guided_grammar`` and
    ``guided_choice``, and ``structured_outputs`` with the same names less ``guided_``.

    Args:
        request: Fields of the request.
        after_token_ids: It holds once these have come, such as the end of a thought.

    Raises:
        RequestError: The wish is malformed, or there are several.
    """
    found = [
        (name, kind, request[name])
        for name, kind in _EXTENSIONS.items()
        if request.get(name) is not None
    ]
    found += _of_structured_outputs(request.get("structured_outputs"))
    wish = request.get("response_format")
    if wish is not None:
        found.append(("response_format", *_of_format(wish)))
    found = [(name, kind, value) for name, kind, value in found if kind != "text"]
    if not found:
        return None
    if len(found) > 1:
        raise RequestError(
            "an answer follows one grammar", got=", ".join(name for name, _, _ in found)
        )
    ((name, kind, value),) = found
    if kind == "choice":
        kind, value = "lark", _one_of(value, name)
    text = value if isinstance(value, str) else json.dumps(value)
    if kind in ("regex", "lark") and not isinstance(value, str):
        raise RequestError("this is no text", where=name, got=type(value).__name__)
    return GrammarSpec(kind=kind, text=text, field=name, after_token_ids=tuple(after_token_ids))


def _of_structured_outputs(wish: object) -> list[tuple[str, str, object]]:
    if wish is None:
        return []
    name = "structured_outputs"
    if not isinstance(wish, Mapping):
        raise RequestError("this is no record", where=name, got=type(wish).__name__)
    wanted = {key: value for key, value in wish.items() if value is not None}
    if unknown := wanted.keys() - _KINDS.keys():
        raise RequestError(
            "there is no such structured output",
            where=name,
            got=", ".join(sorted(map(str, unknown))),
            expected=", ".join(_KINDS),
        )
    return [(f"{name}.{key}", _KINDS[key], value) for key, value in wanted.items()]


def _one_of(choices: object, where: str) -> str:
    """A grammar of one text among several."""
    texts = choices if isinstance(choices, list) else []
    if not texts or not all(isinstance(each, str) and each for each in texts):
        raise RequestError("choices are a list of texts", where=where, got=repr(choices)[:80])
    return "start: " + " | ".join(json.dumps(each, ensure_ascii=False) for each in texts)


def _of_format(wish: object) -> tuple[str, object]:
    where = "response_format"
    if not isinstance(wish, Mapping):
        raise RequestError("a response format is a record", where=where, got=type(wish).__name__)
    match wish.get("type"):
        case "text":
            return "text", ""
        case "json_object":
            return "json_object", ""
        case "json_schema":
            named = wish.get("json_schema")
            schema = named.get("schema") if isinstance(named, Mapping) else None
            if not isinstance(schema, Mapping):
                raise RequestError("the schema is missing", where=f"{where}.json_schema.schema")
            return "json_schema", schema
        case "regex":
            return "regex", wish.get("regex")
        case "grammar":
            return "lark", wish.get("grammar")
    raise RequestError(
        "there is no such response format",
        where=f"{where}.type",
        got=repr(wish.get("type"))[:80],
        expected="text, json_object, json_schema, regex, grammar",
    )


def grammar_of_tools(
    functions: Sequence[Mapping[str, object]],
    after_token_ids: Sequence[int] = (),
    *,
    only_one: bool = False,
) -> GrammarSpec:
    """Returns the grammar of at least one call of these functions, in Hermes' form.

    What cannot be held of a function's schema, such as ``uniqueItems``, is left out of the grammar
    unless the function is ``strict``, as OpenAI understands the word.

    Args:
        functions: ``name``, ``parameters`` (a JSON schema) and ``strict`` of each that may be
            called.
        after_token_ids: It holds once these have come, such as the end of a thought.
        only_one: Whether a second call is one too many.
    """
    rules = [
        "start: call" if only_one else 'start: call ("\\n" call)*',
        f'call: {json.dumps(TOOL_START)} "\\n" (%s) "\\n" {json.dumps(TOOL_END)}'
        % " | ".join(f"call_{index}" for index in range(len(functions))),
    ]
    for index, function in enumerate(functions):
        name = json.dumps(function["name"], ensure_ascii=False)
        head = json.dumps(f'{{"name": {name}, "arguments": ')
        # Each schema by itself: references in it are from its own root.
        rules += [
            f'call_{index}: {head} arguments_{index} "}}"',
            f"arguments_{index}: %json {json.dumps(_schema_of_arguments(function))}",
        ]
    return GrammarSpec(
        kind="lark",
        text="\n".join(rules),
        field="tools",
        after_token_ids=tuple(after_token_ids),
    )


def _schema_of_arguments(function: Mapping[str, object]) -> dict[str, object]:
    schema = function.get("parameters")
    return {
        "x-guidance": {
            "whitespace_pattern": WHITESPACE_PATTERN,
            "lenient": function.get("strict") is not True,
        },
        "type": "object",
        **(schema if isinstance(schema, Mapping) else {}),
    }
