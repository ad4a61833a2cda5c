"""Chat templates: transformers' text for real templates, nothing but an error for hostile ones."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import processors

from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.errors import RequestError, TokenizerError
from qwen3_runtime.text import Tokenizer, load_tokenizer, template_limits
from qwen3_runtime.text.chat_template import ChatTemplate
from tests.runtime.text.test_tokenizer import small_backend

MakeFolder = Callable[..., Path]
Messages = list[dict[str, Any]]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Weather in a <city> & "more" – für 北京',
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "北京"}}}
CONVERSATIONS: list[Messages] = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<b>1 & 2</b> 你好"}],
    [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "<think>\nadd\n</think>\n\n4"},
        {"role": "user", "content": "And 3+3?"},
    ],
    [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4", "reasoning": "adding", "tool_calls": None},
    ],
    [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": '{"t": 21.5}'},
        {"role": "user", "content": "Thanks"},
    ],
    [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"function": {"name": "f", "arguments": '{"raw": "json"}'}}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "1"},
    ],
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"add_generation_prompt": False},
    {"enable_thinking": False},
    {"enable_thinking": True},
    {"tools": [WEATHER]},
    {"tools": [WEATHER, WEATHER], "enable_thinking": False},
]


@pytest.fixture(scope="module")
def transformers_qwen3(qwen3_folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(qwen3_folder)


@pytest.mark.network
@pytest.mark.reference
@pytest.mark.parametrize("options", OPTIONS)
def test_qwen3_renders_and_encodes_as_transformers(
    qwen3: Tokenizer, transformers_qwen3: Any, options: dict[str, Any]
) -> None:
    given = {"add_generation_prompt": True, **options}
    for messages in CONVERSATIONS:
        expected = transformers_qwen3.apply_chat_template(messages, tokenize=False, **given)
        assert qwen3.apply_chat_template(messages, **options) == expected
        ids = transformers_qwen3.apply_chat_template(messages, return_dict=False, **given)
        assert qwen3.encode_chat(messages, **options) == ids


@pytest.mark.network
def test_qwen3_takes_tool_calls_without_text_as_clients_send_them(qwen3: Tokenizer) -> None:
    user = {"role": "user", "content": "Weather?"}
    texts = {
        qwen3.apply_chat_template([user, {"role": "assistant", "tool_calls": [CALL], **content}])
        for content in ({}, {"content": None}, {"content": ""})
    }
    assert len(texts) == 1
    assert '{"name": "get_weather", "arguments": {"city": "北京"}}' in texts.pop()


@pytest.mark.network
def test_qwen3_without_thinking_ends_with_an_empty_thought(qwen3: Tokenizer) -> None:
    text = qwen3.apply_chat_template(CONVERSATIONS[0], enable_thinking=False)
    assert text == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_smollm2_renders_its_own_system_prompt(smollm2_gguf: Path) -> None:
    tokenizer = load_tokenizer(open_checkpoint(smollm2_gguf))
    assert tokenizer is not None
    assert tokenizer.chat_template is not None
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def render(source: str, messages: Messages | None = None, **variables: Any) -> str:
    template = ChatTemplate(source, "template.jinja")
    return template.render(messages or [{"role": "user", "content": "hi"}], variables=variables)


# ---- what templates use ---------------------------------------------------------------------

SAME_AS_TRANSFORMERS = [
    "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}\n  {% endif %}\n"
    "{% endfor %}\n",
    "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ loop.length }}"
    "{{ loop.last }}{{ loop.revindex }}{{ m['content'] ~ '!' ~ loop.first }}{% endfor %}",
    "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ {'b': 1, 'a': '<&>é'} | tojson }}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}|{{ bos_token }}",
    "{%- set ns = namespace(n=0, found=false) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 "
    "-%}{%- endfor -%}{{ ns.n }}{{ ns.found }}",
    "{% macro show(m, depth=0) %}{{ m.role }}{{ depth * '-' }}{% endmacro %}"
    "{% for m in messages %}{{ show(m, loop.index) }}{% endfor %}",
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join }}",
    "{{ messages[0].content.split('i') | first | trim | upper }}{{ 'a,b'.split(',') | length }}",
    "{{ messages[0]['content'][1:] }}{{ messages[::-1][0].role }}"
    "{{ messages[-1].missing is defined }}",
    "{{ 'x' * 3 + 'y' }}{{ 7 // 2 }}{{ 2 ** 10 }}{{ '%s-%d' % ('a', 3) }}{{ [1] + [2] }}",
    "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}{{ dict(a=1)['a'] }}",
    "{{ 'abcabc'.replace('b', 'xx') }}{{ 'a b' | replace(' ', '_') }}{{ ['a', 'b'] | join('-') }}",
    "{{ '-'.join(['a', 'b']) }}{{ 'Hi {} {x}'.format(1, x=2) }}{{ 'é' | length }}",
    "{{ range(3) | list }}{{ range(2, 8, 3) | join }}{{ [3, 1, 2] | sort | last }}",
    "{{ 'line one\nline two' | indent(4) }}|{{ 3.14159 | round(2) }}|{{ [1, 2] | sum }}",
    "{{ '<b>' | e }}{{ none is none }}{{ [{'a': 1}, {'a': 2}] | sum(attribute='a') }}",
    "{{ tools is defined }}{{ tools is none }}{{ add_generation_prompt }}{{ documents }}",
    "{% filter upper %}{{ messages[0].role }}{% endfilter %}{{ 'ab' in 'cab' }}{{ 5 is odd }}",
    "{% set x %}{{ messages[0].role }}{% endset %}{{ x }}",
    "{{ [[1, 2], [3]] | map('length') | list }}{{ (1, 'a') }}{{ {'k': [none, true]} }}",
]


@pytest.mark.reference
@pytest.mark.parametrize("source", SAME_AS_TRANSFORMERS)
def test_constructs_render_as_transformers_renders_them(source: str) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "<yo> é"}]
    (expected,), _ = utils.render_jinja_template(
        [messages], chat_template=source, add_generation_prompt=True, bos_token="<s>"
    )
    assert render(source, messages, bos_token="<s>") == expected


@pytest.mark.network
@pytest.mark.reference
@pytest.mark.parametrize("name", ["llama3_2", "mistral_nemo", "command_r_plus"])
@pytest.mark.parametrize("tools", [None, [WEATHER]])
def test_published_templates_render_as_transformers_renders_them(
    tokenizer_folder: Callable[[str], Path], name: str, tools: list[dict[str, Any]] | None
) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    settings = json.loads((tokenizer_folder(name) / "tokenizer_config.json").read_text())
    named = settings["chat_template"]
    source = named if isinstance(named, str) else named[0]["template"]
    variables = {"bos_token": "<s>", "eos_token": "</s>", "date_string": "26 Jul 2024"}
    for messages in CONVERSATIONS[:3]:
        (expected,), _ = utils.render_jinja_template(
            [messages], tools=tools, chat_template=source, add_generation_prompt=True, **variables
        )
        template = ChatTemplate(source, name)
        assert template.render(messages, tools=tools, variables=variables) == expected


def test_date_comes_from_the_clock() -> None:
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")


def test_template_that_refuses_the_messages_blames_the_request() -> None:
    source = (
        "{% if messages | length > 1 %}{{ raise_exception('roles must alternate') }}{% endif %}"
    )
    with pytest.raises(RequestError, match="roles must alternate") as caught:
        render(source, [{"role": "user", "content": "a"}] * 2)
    assert caught.value.where == "template.jinja"
    assert render(source) == ""


# ---- hostile templates ----------------------------------------------------------------------

UNREACHABLE = {
    "attr filter": "{{ messages | attr('__class__') | attr('__init__') }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "map attribute": "{{ [messages] | map(attribute='__class__') | first }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "class": "{{ messages.__class__ }}",
    "item": "{{ messages['__class__'] }}",
    "namespace": "{% set ns = namespace() %}{{ ns.__class__ }}{{ ns }}",
    "loop": "{% for m in messages %}{{ loop.__class__ }}{% endfor %}",
    "macro": "{% macro f() %}{% endmacro %}{{ f._environment }}{{ f.__class__ }}",
}
"""Templates that ask for Python's internals and get nothing."""

HOSTILE = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "namespace": "{{ namespace(_x=1) }}{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "self": "{{ self._TemplateReference__context.environment }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as x %}{{ x }}",
    "extends": "{% extends '/etc/passwd' %}",
    "mutate": "{{ messages.append(1) }}",
    "mutate dict": "{{ messages[0].update({'a': 1}) }}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}",
    "output": "{% for a in range(99999) %}" + "x" * 1000 + "{% endfor %}",
    "huge range": "{% for a in range(10 ** 9) %}{% endfor %}",
    "doubling": "{% set ns = namespace(s='x') %}{% for a in range(99) %}"
    "{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s | length }}",
    "doubling by ~": "{% set ns = namespace(s='x') %}{% for a in range(99) %}"
    "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s | length }}",
    "doubling by join": "{% set ns = namespace(s='x') %}{% for a in range(99) %}"
    "{% set ns.s = ns.s.join(['', '', '']) %}{% endfor %}",
    "doubling by replace": "{% set ns = namespace(s='x') %}{% for a in range(99) %}"
    "{% set ns.s = ns.s.replace('x', 'xx') %}{% endfor %}",
    "doubling by filter": "{% set ns = namespace(s='x') %}{% for a in range(99) %}"
    "{% set ns.s = ns.s | replace('x', 'xx') %}{% endfor %}",
    "doubling a list": "{% set ns = namespace(s=[1]) %}{% for a in range(99) %}"
    "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "doubling by format": "{% set ns = namespace(s='x') %}{% for a in range(99) %}"
    "{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
    "doubling by escaping": "{% set ns = namespace(s='&' * 9999) %}{% for a in range(99) %}"
    "{% set ns.s = (ns.s | e | string) ~ '' %}{% endfor %}",
    "doubling by sum": "{% set ns = namespace(s=[1]) %}{% for a in range(99) %}"
    "{% set ns.s = [ns.s, ns.s] | sum(start=[]) %}{% endfor %}",
    "doubling by dict": "{% set ns = namespace(s=1) %}{% for a in range(99) %}"
    "{% set ns.s = dict(a=ns.s, b=ns.s) %}{% endfor %}{{ ns.s }}",
    "doubling by varargs": "{% macro f() %}{% set ns.s = varargs %}{% endmacro %}"
    "{% set ns = namespace(s=1) %}{% for a in range(99) %}"
    "{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ ns.s }}",
    "doubling by macro": "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}"
    "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = f(ns.s) %}{% endfor %}",
    "doubling by block": "{% set ns = namespace(s='x') %}{% for a in range(99) %}"
    "{% set t %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = t %}{% endfor %}",
    "hoarding": "{% set big = 'x' * 8000000 %}{% set ns = namespace(l=[]) %}"
    "{% for a in range(99999) %}{% set ns.l = [ns.l, big[1:]] %}{% endfor %}",
    "hoarding by split": "{% set big = 'x,' * 400000 %}{% set ns = namespace(l=[]) %}"
    "{% for a in range(99999) %}{% set ns.l = [ns.l, big.split(',')] %}{% endfor %}",
    "filling": "{{ [1] | batch(999, [1] * 999) | list }}",
    "many fields": "{{ ('%s' * 999) % (('x' * 99999,) * 999) }}",
    "doubling by str.format": "{% set ns = namespace(s='x') %}{% for a in range(99) %}"
    "{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}",
    "doubling by tojson": "{% set ns = namespace(s=['x']) %}{% for a in range(99) %}"
    "{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}",
    "product": "{{ 'x' * 10 ** 10 }}",
    "product of constants": "{{ 'x' * 9999999999 }}",
    "product of a list": "{{ ([1] * 9999999999) | length }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "growing integer": "{% set ns = namespace(n=9) %}{% for a in range(99) %}"
    "{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "center": "{{ 'x' | center(9999999999) }}",
    "center by map": "{{ ['x'] | map('center', 9999999999) | list }}",
    "method": "{{ 'x'.ljust(9999999999) }}",
    "zfill": "{{ 'x'['zfill'](9999999999) }}",
    "expandtabs": "{{ '\t'.expandtabs(9999999999) }}",
    "to_bytes": "{{ (1).to_bytes(9999999999, 'big') }}",
    "indent": "{{ 'a\nb' | indent(9999999999) }}",
    "batch": "{{ [1] | batch(9999999999, 'x') | list }}",
    "slice": "{{ [1] | slice(9999999999) | list }}",
    "round": "{{ 1.5 | round(9999999999, 'ceil') }}",
    "tojson indent": "{{ [1] | tojson(indent=9999999999) }}",
    "format width": "{{ '%9999999999d' % 1 }}",
    "format star": "{{ '%*d' % (9999999999, 1) }}",
    "str.format width": "{{ '{:9999999999}'.format(1) }}",
    "str.format nested": "{{ '{:{w}}'.format(1, w=9999999999) }}",
    "lipsum": "{{ lipsum(n=999999) }}",
    "filter gone": "{{ 'x' | pprint }}",
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "recursive loop": "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "caller": "{% macro f(n) %}{{ caller(n) }}{{ caller(n) }}{% endmacro %}"
    "{% macro g(n) %}{% call(m) f(n) %}{{ g(m) }}{% endcall %}{% endmacro %}{{ g(1) }}",
    "strftime": "{{ strftime_now('%Y' * 99999) }}",
    "syntax": "{% if %}",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "long": "x" * (1 << 21),
    "division": "{{ 1 / 0 }}",
}


ENDED_BY_THE_CLOCK = {"nested loops", "hoarding by split"} | {
    f"doubling {how}" for how in ("a list", "by dict", "by tojson", "by varargs")
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_template_gets_an_error_in_bounded_time_and_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ENDED_BY_THE_CLOCK:
        monkeypatch.setattr(template_limits, "MAX_SECONDS", 1.0)
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises((TokenizerError, RequestError)) as caught:
        render(HOSTILE[name])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - started < 60
    assert peak < 500 << 20
    assert "template.jinja" in str(caught.value)


@pytest.mark.parametrize("name", UNREACHABLE)
def test_internals_are_not_reached(name: str) -> None:
    assert render(UNREACHABLE[name]) in ("", "<Namespace>")


def test_a_long_conversation_is_within_the_limits() -> None:
    """4000 turns of 1000 characters, a million tokens, with the work real templates do."""
    source = (
        "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set c = m.content | trim -%}"
        "{%- if '</think>' in c -%}{%- set c = c.split('</think>')[-1] -%}{%- endif -%}"
        "{%- set ns.n = ns.n + 1 -%}"
        "{{- '<|im_start|>' + m.role + '\n' + c + '<|im_end|>' ~ '\n' -}}{%- endfor -%}"
    )
    messages = [{"role": "user", "content": "word " * 200} for _ in range(4000)]
    assert len(render(source, messages)) == 4000 * (999 + 28)


def test_templates_and_messages_are_left_as_they_were() -> None:
    messages = [{"role": "user", "content": ["a", {"b": None}]}]
    before = json.dumps(messages)
    render("{% set messages = [] %}{{ messages }}", messages)
    assert json.dumps(messages) == before


# ---- input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        ("hi", "at least one message"),
        (None, "at least one message"),
        ({"role": "user"}, "at least one message"),
        (["hi"], "a record with role and content"),
        ([{"role": "user", "content": b"x"}], "not plain JSON"),
        ([{"role": "user", "content": object()}], "not plain JSON"),
        ([{"role": "user", "content": float("nan")}], "no finite number"),
    ],
)
def test_messages_of_the_wrong_form_are_the_requests_fault(messages: Any, message: str) -> None:
    template = ChatTemplate("{{ messages[0].content }}", "template.jinja")
    with pytest.raises(RequestError) as caught:
        template.render(messages)
    assert message in str(caught.value)


def test_bottomless_input_is_the_requests_fault() -> None:
    content: Any = "x"
    for _ in range(100):
        content = [content]
    with pytest.raises(RequestError, match="nested too deeply"):
        render("{{ messages }}", [{"role": "user", "content": content}])


def test_objects_lose_their_methods() -> None:
    class Loud(str):
        def shout(self) -> str:
            return self.upper()

    source = "{{ messages[0].content }}{{ messages[0].content.shout is defined }}"
    assert render(source, [{"role": "user", "content": Loud("hi")}]) == "hiFalse"


# ---- where templates come from --------------------------------------------------------------


def tokenizer_of(folder: Path) -> Tokenizer:
    tokenizer = load_tokenizer(open_checkpoint(folder))
    assert tokenizer is not None
    return tokenizer


def test_template_file_wins_over_the_config(make_folder: MakeFolder) -> None:
    folder = make_folder(
        tokenizer=small_backend(),
        tokenizer_config={"chat_template": "config", "bos_token": "<s>"},
    )
    assert tokenizer_of(folder).chat_template == "config"
    (folder / "chat_template.jinja").write_text("{{ bos_token }}file")
    tokenizer = tokenizer_of(folder)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}]) == "<s>file"
    assert tokenizer.encode_chat([{"role": "user", "content": "x"}])[0] == 257


def test_rendered_conversation_gets_no_second_begin_token(make_folder: MakeFolder) -> None:
    backend = Backend.from_str(json.dumps(small_backend()))
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 257)])
    folder = make_folder(
        tokenizer=json.loads(backend.to_str()),
        tokenizer_config={"bos_token": "<s>", "chat_template": "{{ bos_token }}he"},
    )
    tokenizer = tokenizer_of(folder)
    assert tokenizer.encode("he") == [257, 256]
    assert tokenizer.encode_chat([{"role": "user", "content": "x"}]) == [257, 256]


def test_named_templates_serve_tools(make_folder: MakeFolder) -> None:
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "tools {{ tools | length }}"},
    ]
    folder = make_folder(tokenizer=small_backend(), tokenizer_config={"chat_template": named})
    tokenizer = tokenizer_of(folder)
    messages: Messages = [{"role": "user", "content": "x"}]
    assert tokenizer.apply_chat_template(messages) == "plain"
    assert tokenizer.apply_chat_template(messages, tools=[WEATHER]) == "tools 1"


def test_extra_template_files_are_found(make_folder: MakeFolder) -> None:
    folder = make_folder(tokenizer=small_backend())
    (folder / "chat_template.jinja").write_text("plain")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    tokenizer = tokenizer_of(folder)
    assert tokenizer.apply_chat_template([{"role": "user"}], tools=[]) == "tools"


def test_model_without_template_says_so(make_folder: MakeFolder) -> None:
    tokenizer = tokenizer_of(make_folder(tokenizer=small_backend()))
    assert tokenizer.chat_template is None
    with pytest.raises(TokenizerError, match="no chat template"):
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}])


def test_variables_cannot_replace_the_messages(make_folder: MakeFolder) -> None:
    folder = make_folder(tokenizer=small_backend(), tokenizer_config={"chat_template": "x"})
    variables: dict[str, Any] = {"messages": [], "documents": []}
    template = ChatTemplate("x", "template.jinja")
    with pytest.raises(RequestError, match="reserved name"):
        template.render([{"role": "user"}], variables=variables)
    assert tokenizer_of(folder).apply_chat_template([{"role": "user"}], documents=[]) == "x"
