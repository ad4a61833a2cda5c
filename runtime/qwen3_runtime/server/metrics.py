"""Counts and times for Prometheus, under vLLM's names with our prefix."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from qwen3_runtime.server.pieces import TextPiece
from qwen3_runtime.serving import EngineClient

__all__ = ["AnswerWatch", "Metrics"]

_PREFIX = "qwen3_codegen"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_TOKEN_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """What one server has counted; a registry of its own, so that several live in one process."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._registry = CollectorRegistry()
        self._running = self._gauge("num_requests_running", "Requests the engine works on")
        self._waiting = self._gauge("num_requests_waiting", "Requests that wait for a place")
        self._usage = self._gauge("kv_cache_usage_perc", "Share of cache blocks in use, 0 to 1")
        self._num_preemptions = 0
        self._preemptions = self._counter(
            "num_preemptions", "Times a sequence gave its blocks up and was computed again"
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts")
        self.cached_tokens = self._counter(
            "prefix_cache_hits", "Tokens of prompts that were found in the cache"
        )
        self.queried_tokens = self._counter(
            "prefix_cache_queries", "Tokens of prompts that were looked for in the cache"
        )
        self.generated_tokens = self._counter("generation_tokens", "Generated tokens")
        self.finished = Counter(
            "request_success",
            "Answers that came to their end",
            ["finished_reason"],
            namespace=_PREFIX,
            registry=self._registry,
        )
        self.failed = self._counter("request_failure", "Answers that ended with an error")
        self.aborted = self._counter("request_abort", "Answers whose clients left")
        self.first_token = self._histogram(
            "time_to_first_token_seconds", "From the request to its first token", _SECONDS
        )
        self.queue = self._histogram(
            "request_queue_time_seconds",
            "What is left of the time to the first token: waiting, and the way there and back",
            _SECONDS,
        )
        self.prefill = self._histogram(
            "request_prefill_time_seconds",
            "From the first step for it to its first token",
            _SECONDS,
        )
        self.between_tokens = self._histogram(
            "inter_token_latency_seconds", "From one token to the next", _TOKEN_SECONDS
        )
        self.decode = self._histogram(
            "request_decode_time_seconds", "From the first token of an answer to its last", _SECONDS
        )
        self.whole = self._histogram(
            "e2e_request_latency_seconds", "From the request to its last token", _SECONDS
        )

    def watch(self, num_prompt_tokens: int) -> AnswerWatch:
        """Returns what counts one answer, which begins now."""
        return AnswerWatch(self, num_prompt_tokens)

    def text(self) -> bytes:
        """Returns all of it in Prometheus' text format."""
        status = self._client.status
        self._running.set(status.num_running)
        self._waiting.set(status.num_waiting)
        self._preemptions.inc(status.num_preemptions - self._num_preemptions)
        self._num_preemptions = status.num_preemptions
        used = status.num_blocks - status.num_free_blocks
        self._usage.set(used / status.num_blocks if status.num_blocks else 0.0)
        return generate_latest(self._registry)

    def _gauge(self, name: str, doc: str) -> Gauge:
        return Gauge(name, doc, namespace=_PREFIX, registry=self._registry)

    def _counter(self, name: str, doc: str) -> Counter:
        return Counter(name, doc, namespace=_PREFIX, registry=self._registry)

    def _histogram(self, name: str, doc: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, doc, namespace=_PREFIX, registry=self._registry, buckets=buckets)


class AnswerWatch:
    """Counts one answer, and takes its times."""

    def __init__(self, metrics: Metrics, num_prompt_tokens: int) -> None:
        self._metrics = metrics
        self._num_prompt_tokens = num_prompt_tokens
        self._started = time.perf_counter()
        self._first = self._started
        self._last: float | None = None
        self.is_over = False

    def add(self, piece: TextPiece) -> None:
        """Counts what has come."""
        metrics, now = self._metrics, time.perf_counter()
        if self._last is None:
            metrics.prompt_tokens.inc(self._num_prompt_tokens)
            metrics.queried_tokens.inc(self._num_prompt_tokens)
            metrics.cached_tokens.inc(piece.num_cached_tokens)
            metrics.first_token.observe(now - self._started)
            metrics.prefill.observe(piece.prefill_seconds)
            metrics.queue.observe(max(0.0, now - self._started - piece.prefill_seconds))
            self._first = now
        else:
            metrics.between_tokens.observe(now - self._last)
        self._last = now
        metrics.generated_tokens.inc(piece.num_tokens)
        if piece.finish_reason is not None:
            self.is_over = True
            metrics.decode.observe(now - self._first)
            metrics.finished.labels(piece.finish_reason).inc()
            metrics.whole.observe(now - self._started)

    def fail(self) -> None:
        """Counts that it ended with an error, if it has not ended yet."""
        if not self.is_over:
            self.is_over = True
            self._metrics.failed.inc()

    def leave(self) -> None:
        """Counts that its client left, if it has not ended yet."""
        if not self.is_over:
            self.is_over = True
            self._metrics.aborted.inc()
