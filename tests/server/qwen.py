"""A tokenizer that behaves as Qwen3's does: one token per byte, markers, and a chat template.

The template is written anew after what Qwen3's does: tools in the system message, earlier thoughts
dropped, calls and tool answers in their markers, ``enable_thinking=false`` closes a thought.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from qwen3_runtime.text import Tokenizer

END, PAD = "<|im_end|>", "<|endoftext|>"
SAY, SAID = "<|say|>", "<|said|>"
CONTROL = (PAD, "<|im_start|>", END, SAY, SAID)
MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>")

TEMPLATE = """
{%- macro opened(role) -%}<|im_start|>{{ role }}
{% endmacro -%}
{%- if messages[0].role == 'tool' %}{{ raise_exception('no call came before') }}{% endif -%}
{%- if tools -%}
{{- opened('system') -}}
{%- if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif -%}
You may call functions. Their signatures:
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
Call them as <tool_call>
{"name": "...", "arguments": {...}}
</tool_call><|im_end|>
{% elif messages[0].role == 'system' -%}
{{- opened('system') + messages[0].content }}<|im_end|>
{% endif -%}
{%- for message in messages[(1 if messages[0].role == 'system' else 0):] -%}
{%- if message.role == 'tool' -%}
{{- opened('user') }}<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else -%}
{%- set text = message.content -%}
{%- if message.role == 'assistant' and '</think>' in text -%}
{%- set text = text.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{- opened(message.role) + text -}}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- opened('assistant') -}}
{%- if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif -%}
{%- endif -%}
"""


def qwen_backend() -> Backend:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in CONTROL])
    backend.add_tokens([AddedToken(text, special=False) for text in MARKERS])
    return backend


def qwen_tokenizer() -> Tokenizer:
    backend = qwen_backend()
    return Tokenizer(
        backend,
        where=Path("tokenizer.json"),
        special_tokens={"eos_token": END, "pad_token": PAD},
        eos_token_ids=[backend.token_to_id(END)],
        chat_templates={"default": TEMPLATE},
    )


def write_tokenizer(folder: Path) -> None:
    """Puts the files of a Hugging Face tokenizer into a checkpoint's folder."""
    qwen_backend().save(str(folder / "tokenizer.json"))
    settings = {"eos_token": END, "pad_token": PAD, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
