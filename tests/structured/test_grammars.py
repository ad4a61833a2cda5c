"""Whatever a model would say, under a grammar it says what the grammar allows."""

from __future__ import annotations

import json
import re
import time

import jsonschema
import numpy as np
import pytest

from qwen3_runtime.errors import RequestError
from qwen3_runtime.sampling import Draw, SamplingParams, sampler_for
from qwen3_runtime.sampling.grammar import GrammarSpec
from qwen3_runtime.structured import LlguidanceCompiler, grammar_of_tools, grammar_of_wishes
from tests.structured.bytes_tokenizer import bytes_tokenizer

TOKENIZER = bytes_tokenizer()
VOCAB = 300
COMPILE = LlguidanceCompiler(TOKENIZER, VOCAB)
(EOS,) = TOKENIZER.eos_token_ids


def say(spec: GrammarSpec, seed: int, *, likes: str = "", limit: int = 400) -> tuple[str, bool]:
    """Text of a model that says anything at all; whether it came to its end."""
    grammar = COMPILE(spec)
    sampler = sampler_for(object())
    rng = np.random.default_rng(seed)
    tokens: list[int] = []
    liked = TOKENIZER.encode(likes)
    for _ in range(limit):
        logits = rng.standard_normal((1, VOCAB)).astype(np.float32) * 3
        logits[0, EOS] += 4  # or it would hardly ever end
        if len(tokens) < len(liked):
            logits[0, liked[len(tokens)]] += 100
        draw = Draw(SamplingParams(), seed, tokens, 0, mask=grammar.mask())
        (token,) = sampler.sample(logits, [draw])
        if token == EOS:
            return TOKENIZER.decode(tokens), True
        grammar.accept(token)
        tokens.append(token)
    return TOKENIZER.decode(tokens), False


SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["a", "b"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["kind", "count", "flags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(5))
def test_json_follows_its_schema(seed):
    wish = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    text, is_over = say(grammar_of_wishes({"response_format": wish}), seed)
    assert is_over
    jsonschema.validate(json.loads(text), SCHEMA)


def test_any_object():
    spec = grammar_of_wishes({"response_format": {"type": "json_object"}})
    text, is_over = say(spec, 1, likes='{"a":[1,{"b":null}]}')
    assert is_over
    assert json.loads(text) == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    "request_fields",
    [
        {"guided_regex": "[0-9]{3}-[a-f]+x"},
        {"structured_outputs": {"regex": "[0-9]{3}-[a-f]+x", "json": None}},
        {"response_format": {"type": "regex", "regex": "[0-9]{3}-[a-f]+x"}},
    ],
)
def test_expressions(request_fields):
    text, is_over = say(grammar_of_wishes(request_fields), 2)
    assert is_over
    assert re.fullmatch("[0-9]{3}-[a-f]+x", text)


def test_grammars():
    lark = 'start: "yes" | "no" (" " "really")*'
    for fields in (
        {"guided_grammar": lark},
        {"response_format": {"type": "grammar", "grammar": lark}},
    ):
        text, is_over = say(grammar_of_wishes(fields), 3)
        assert is_over
        assert re.fullmatch("yes|no( really)*", text)


@pytest.mark.parametrize("name", ["guided_choice", "structured_outputs"])
def test_one_of_several_texts(name):
    choices = ['New "York"', "Köln", "a|b*"]
    fields = {name: choices if name == "guided_choice" else {"choice": choices}}
    found = {say(grammar_of_wishes(fields), seed) for seed in range(12)}
    assert all(is_over for _, is_over in found)
    assert {text for text, _ in found} <= set(choices)
    assert len(found) > 1


def test_a_grammar_waits_for_the_end_of_a_thought():
    after = tuple(TOKENIZER.encode("</think>\n"))
    spec = grammar_of_wishes({"guided_regex": "[01]+"}, after)
    text, _ = say(spec, 4, likes="free thought 9</think>\nxyz", limit=40)
    thought, answer = text.split("</think>\n")
    assert thought == "free thought 9"
    assert re.fullmatch("[01]+", answer)


def test_calls_of_given_functions():
    functions = [
        {"name": "f", "parameters": {**SCHEMA, "properties": {**SCHEMA["properties"]}}},
        {"name": "g", "parameters": None},
    ]
    text, is_over = say(grammar_of_tools(functions), 5)
    assert is_over
    for call in text.split("\n</tool_call>")[:-1]:
        value = json.loads(call.lstrip().removeprefix("<tool_call>"))
        assert value["name"] in ("f", "g")
        if value["name"] == "f":
            jsonschema.validate(value["arguments"], SCHEMA)


def test_a_function_whose_schema_refers_to_itself():
    chain = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Chain"}, {"type": "null"}]}},
        "required": ["next"],
        "additionalProperties": False,
    }
    parameters = {
        "properties": {"chain": {"$ref": "#/$defs/Chain"}},
        "required": ["chain"],
        "additionalProperties": False,
        "$defs": {"Chain": chain},
    }
    spec = grammar_of_tools(
        [{"name": name, "parameters": parameters} for name in ("f", "拉")], only_one=True
    )
    form = '<tool_call>\n{"name": "%s", "arguments": {"chain": {"next": %s}}}\n</tool_call>'
    for name in ("f", "拉"):
        call = form % (name, '{"next": null}')
        assert say(spec, 1, likes=call) == (call, True)
    wrong = form % ("f", '{"other": 1}')
    assert say(spec, 1, likes=wrong, limit=len(wrong))[0] != wrong


@pytest.mark.parametrize(
    ("spec", "start"),
    [
        (GrammarSpec(kind="json_object", text=""), "{"),
        (GrammarSpec(kind="json_schema", text=json.dumps(SCHEMA)), "{"),
        (
            grammar_of_tools([{"name": "f", "parameters": SCHEMA}]),
            '<tool_call>\n{"name": "f", "arguments": {',
        ),
    ],
    ids=["object", "schema", "call"],
)
def test_white_space_has_an_end(spec, start):
    text, _ = say(spec, 1, likes=start + " \n" * 200)
    assert text.startswith(start + " \n" * 30)
    assert text[len(start) + 100].strip()


def test_a_strict_function_is_held_to_all_of_its_schema():
    parameters = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}},
        "required": ["a"],
    }
    function = {"name": "f", "parameters": parameters}
    COMPILE(grammar_of_tools([function]))
    with pytest.raises(RequestError, match="uniqueItems"):
        COMPILE(grammar_of_tools([{**function, "strict": True}]))


@pytest.mark.parametrize(
    "spec",
    [
        GrammarSpec(kind="json_schema", text='{"type": "nonsense"}'),
        GrammarSpec(kind="json_schema", text="{"),
        GrammarSpec(kind="regex", text="("),
        GrammarSpec(kind="lark", text="start: undefined_rule"),
        GrammarSpec(kind="lark", text="x" * 300_000),
        GrammarSpec(kind="poem", text=""),
    ],
)
def test_what_cannot_be_compiled_is_the_requests_fault(spec):
    with pytest.raises(RequestError):
        COMPILE(spec)


def test_what_is_too_large_holds_nobody_up():
    started = time.process_time()
    with pytest.raises(RequestError, match="cannot be compiled"):
        COMPILE(GrammarSpec(kind="regex", text="((a{999}){999}){999}"))
    assert time.process_time() - started < 0.3


def test_an_answer_without_a_thought_follows_at_once():
    opening, *after = TOKENIZER.encode("<tool_call></think>")
    spec = GrammarSpec(
        kind="regex", text="[0-9]{3}", after_token_ids=tuple(after), opening_token_id=opening
    )
    assert re.fullmatch("[0-9]{3}", say(spec, 1, likes="abc")[0])
    text, _ = say(spec, 1, likes="<tool_call>a thought</think>")
    assert re.fullmatch("<tool_call>a thought</think>[0-9]{3}", text)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"response_format": "json"}, "is a record"),
        ({"response_format": {"type": "poem"}}, "no such response format"),
        ({"response_format": {"type": "json_schema"}}, "schema is missing"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "schema is missing"),
        ({"guided_regex": 5}, "no text"),
        ({"response_format": {"type": "regex"}}, "no text"),
        ({"guided_regex": "a", "guided_json": {}}, "one grammar"),
    ],
)
def test_malformed_wishes_are_named(fields, says):
    with pytest.raises(RequestError, match=says):
        grammar_of_wishes(fields)


def test_no_wish():
    assert grammar_of_wishes({}) is None
    assert grammar_of_wishes({"response_format": {"type": "text"}}) is None
    assert grammar_of_wishes({"response_format": None, "guided_regex": None}) is None
