"""Items of a response while they come, and the events that tell of them."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from qwen3_runtime.chat import AnswerDelta, ToolCallDelta

__all__ = ["Event", "Output"]

Event = dict[str, Any]
"""What a stream says, but for its sequence number."""
Logprobs = list[dict[str, Any]]


class Output:
    """The ``output`` of a response: thoughts, messages and calls, in the order they began.

    Only the last item may be open; another one that begins ends it. What the methods say has
    happened once their iterators are at an end.

    Args:
        namespaces: Of functions that have one, by the function's name.
    """

    def __init__(self, namespaces: Mapping[str, str]) -> None:
        self._namespaces = namespaces
        self._items: list[_Item] = []
        self._is_open = False

    def body(self) -> list[dict[str, Any]]:
        """Returns the items as they are now."""
        return [item.body() for item in self._items]

    def add(self, delta: AnswerDelta, logprobs: Logprobs) -> Iterator[Event]:
        """Takes what has come; ``logprobs`` are those of its content."""
        calls = list(delta.tool_calls)
        if delta.reasoning:
            yield from self._add_text(_Reasoning, delta.reasoning, [])
        while calls and calls[0].id is None:  # these belong to a call before the content
            yield from self._items[-1].add(calls.pop(0).arguments, [])
        if delta.content:
            yield from self._add_text(_Message, delta.content, logprobs)
        for part in calls:
            if part.id is not None:
                call = _FunctionCall(len(self._items), part, self._namespaces.get(part.name or ""))
                yield from self._begin(call)
            if part.arguments:
                yield from self._items[-1].add(part.arguments, [])

    def finish(self, status: str) -> Iterator[Event]:
        """Ends the item that is open: ``completed`` or ``incomplete``."""
        if self._is_open:
            self._is_open = False
            yield from self._items[-1].end(status)

    def _add_text(self, kind: type[_TextItem], text: str, logprobs: Logprobs) -> Iterator[Event]:
        if not self._is_open or not isinstance(self._items[-1], kind):
            yield from self._begin(kind(len(self._items)))
        yield from self._items[-1].add(text, logprobs)

    def _begin(self, item: _Item) -> Iterator[Event]:
        yield from self.finish("completed")
        self._items.append(item)
        self._is_open = True
        yield from item.begin()


class _Item(ABC):
    """One of the items.

    Args:
        index: Its place in ``output``.
    """

    id_prefix: str

    def __init__(self, index: int) -> None:
        self.id = f"{self.id_prefix}_{uuid.uuid4().hex}"
        self.status = "in_progress"
        self._index = index

    def begin(self) -> Iterator[Event]:
        """Yields what a stream says of its beginning."""
        yield self._whole_event("added")

    @abstractmethod
    def add(self, text: str, logprobs: Logprobs) -> Iterator[Event]:
        """Takes a piece."""

    def end(self, status: str) -> Iterator[Event]:
        """Yields what a stream says of its end."""
        self.status = status
        yield self._whole_event("done")

    @abstractmethod
    def body(self) -> dict[str, Any]:
        """Returns it as it is now."""

    def _whole_event(self, what: str) -> Event:
        return {
            "type": f"response.output_item.{what}",
            "output_index": self._index,
            "item": self.body(),
        }

    def _event(self, kind: str, **fields: Any) -> Event:
        return {
            "type": f"response.{kind}",
            "item_id": self.id,
            "output_index": self._index,
            **fields,
        }


class _TextItem(_Item):
    """A text, which is the only part of its item's content."""

    kind: str
    """What a part is called, and the events of its text."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._pieces: list[str] = []
        self._logprobs: Logprobs = []

    def begin(self) -> Iterator[Event]:
        yield from super().begin()
        yield self._part_event("added")

    def add(self, text: str, logprobs: Logprobs) -> Iterator[Event]:
        self._pieces.append(text)
        self._logprobs += logprobs
        yield self._text_event("delta", "delta", text, logprobs)

    def end(self, status: str) -> Iterator[Event]:
        yield self._text_event("done", "text", self._text, self._logprobs)
        yield self._part_event("done")
        yield from super().end(status)

    @property
    def _text(self) -> str:
        return "".join(self._pieces)

    @property
    def _content(self) -> list[dict[str, Any]]:
        """None before its first text: clients make it of the parts that are added."""
        return [self._part()] if self._pieces else []

    def _part(self) -> dict[str, Any]:
        return {"type": self.kind, "text": self._text}

    def _part_event(self, what: str) -> Event:
        return self._event(f"content_part.{what}", content_index=0, part=self._part())

    def _text_event(self, what: str, name: str, text: str, logprobs: Logprobs) -> Event:
        return self._event(f"{self.kind}.{what}", content_index=0, **{name: text})


class _Reasoning(_TextItem):
    """A thought."""

    id_prefix = "rs"
    kind = "reasoning_text"

    def body(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "reasoning",
            "status": self.status,
            "summary": [],
            "content": self._content,
            "encrypted_content": None,
        }


class _Message(_TextItem):
    """What the model says."""

    id_prefix = "msg"
    kind = "output_text"

    def body(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "status": self.status,
            "content": self._content,
        }

    def _part(self) -> dict[str, Any]:
        return {**super()._part(), "annotations": [], "logprobs": [*self._logprobs]}

    def _text_event(self, what: str, name: str, text: str, logprobs: Logprobs) -> Event:
        return {**super()._text_event(what, name, text, logprobs), "logprobs": logprobs}


class _FunctionCall(_Item):
    """A call of a function."""

    id_prefix = "fc"

    def __init__(self, index: int, first: ToolCallDelta, namespace: str | None) -> None:
        super().__init__(index)
        self._call_id, self._name, self._namespace = first.id, first.name, namespace
        self._pieces: list[str] = []

    def add(self, text: str, logprobs: Logprobs) -> Iterator[Event]:
        self._pieces.append(text)
        yield self._event("function_call_arguments.delta", delta=text)

    def end(self, status: str) -> Iterator[Event]:
        arguments = "".join(self._pieces)
        yield self._event("function_call_arguments.done", name=self._name, arguments=arguments)
        yield from super().end(status)

    def body(self) -> dict[str, Any]:
        body = {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": "".join(self._pieces),
        }
        return body if self._namespace is None else {**body, "namespace": self._namespace}
