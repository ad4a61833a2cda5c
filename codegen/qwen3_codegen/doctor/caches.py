"""Where things are kept between runs, and how much of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from qwen3_codegen.cache_contents import cache_entries
from qwen3_codegen.doctor.finding import Finding, note, ok
from qwen3_codegen.paths import cache_dir
from qwen3_codegen.progress import format_bytes


def cache_findings(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yields our cache by kind, and Hugging Face's cache of models."""
    entries = cache_entries()
    sizes: Counter[str] = Counter()
    counts = Counter(entry.kind for entry in entries)
    for entry in entries:
        sizes[entry.kind] += entry.num_bytes
    parts = [
        f"{count} {_called(kind, count)} {format_bytes(sizes[kind])}"
        for kind, count in counts.items()
    ]
    yield ok("cache", f"{cache_dir()}: {', '.join(parts) or 'empty'}")
    yield _hub_finding(environment)


def _called(kind: str, count: int) -> str:
    """A kind of entry as one says it of so many: only these end in a plural's s."""
    return kind.removesuffix("s") if count == 1 else kind


def _hub_finding(environment: Mapping[str, str]) -> Finding:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    offline = "; HF_HUB_OFFLINE is set, nothing is downloaded" if _is_offline() else ""
    endpoint = f"; from {environment['HF_ENDPOINT']}" if environment.get("HF_ENDPOINT") else ""
    models = sorted(folder.glob("models--*"))
    blobs = (blob for model in models for blob in (model / "blobs").glob("*"))
    total = sum(blob.stat().st_size for blob in blobs if blob.is_file())
    counted = f"{len(models)} {_called('models', len(models))}"
    said = f"{folder}: {counted} {format_bytes(total)}{endpoint}{offline}"
    return note("hub cache", said) if offline else ok("hub cache", said)


def _is_offline() -> bool:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)
