"""The ``chat`` section of model specs and architecture files: how to talk to a model."""

from __future__ import annotations

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec import schema
from qwen3_codegen.spec.model import Attribute, ChatDefaults
from qwen3_codegen.spec.sections import Section, unknown_key
from qwen3_codegen.spec.yaml_loader import YamlScalar, kind_of

__all__ = ["REASONING_FORMATS", "SAMPLING_DEFAULTS", "TOOL_FORMATS", "merged_chat", "read_chat"]

TOOL_FORMATS = {"hermes": "`<tool_call>{...}</tool_call>` around JSON"}
REASONING_FORMATS = {"think": "reasoning between `<think>` and `</think>`"}
SAMPLING_DEFAULTS = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1_000_000),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
"""Sampling parameters that may be set, with their bounds."""


def read_chat(section: Section) -> ChatDefaults:
    """Reads the key ``chat`` of a model spec or an architecture file; without it, no defaults."""
    chat = section.section("chat", schema.CHAT)
    if chat is None:
        return ChatDefaults()
    return ChatDefaults(
        system_prompt=chat.scalar("system_prompt", str),
        tool_format=_format(chat, "tool_format", TOOL_FORMATS),
        reasoning_format=_format(chat, "reasoning_format", REASONING_FORMATS),
        sampling=_sampling(chat, "sampling"),
        sampling_without_thinking=_sampling(chat, "sampling_without_thinking"),
    )


def _format(chat: Section, key: str, known: dict[str, str]) -> str | None:
    value = chat.scalar(key, str)
    if value is not None and value not in known:
        chat.problems.add(
            SpecError(
                f"unknown {key} '{value}'",
                where=chat.where(key),
                expected=", ".join(known),
                hint=nearest(value, known),
            )
        )
    return value


def _sampling(chat: Section, name: str) -> dict[str, Attribute]:
    sampling: dict[str, Attribute] = {}
    for key, node, where in chat.entries(name):
        value = node.value if isinstance(node, YamlScalar) else None
        if key not in SAMPLING_DEFAULTS:
            chat.problems.add(unknown_key(key, f"'{name}'", SAMPLING_DEFAULTS, where))
            continue
        low, high = SAMPLING_DEFAULTS[key]
        wanted = int if isinstance(low, int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted) or not low <= value <= high:
            chat.problems.add(
                SpecError(
                    f"'{key}' is out of range",
                    where=where,
                    got=kind_of(node),
                    expected=f"{low} to {high}",
                )
            )
        sampling[key] = value
    return sampling


def merged_chat(model: ChatDefaults, architecture: ChatDefaults) -> ChatDefaults:
    """Returns what a model spec says, and its architecture's word where it says nothing."""
    return ChatDefaults(
        system_prompt=model.system_prompt or architecture.system_prompt,
        tool_format=model.tool_format or architecture.tool_format,
        reasoning_format=model.reasoning_format or architecture.reasoning_format,
        sampling={**architecture.sampling, **model.sampling},
        sampling_without_thinking={
            **architecture.sampling_without_thinking,
            **model.sampling_without_thinking,
        },
    )
