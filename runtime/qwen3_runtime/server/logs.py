"""The server's log: a line for every request, as text or as JSON."""

from __future__ import annotations

import json
import logging
import time

__all__ = ["LOG_FORMATS", "log_to_stderr", "say"]

LOG_FORMATS = ("text", "json")
_log = logging.getLogger("qwen3_codegen.server")
_FIELDS = ("request_id", "method", "path", "status", "seconds")


def log_to_stderr(log_format: str) -> None:
    """Sends what is logged to standard error.

    Args:
        log_format: One of ``LOG_FORMATS``.
    """
    text = _TextFormatter("%(asctime)s %(levelname)s %(message)s")
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if log_format == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def say(text: str) -> None:
    """Tells the operator what the server is at: plain lines, or an object like all others."""
    _log.info("%s", text, extra={"is_plain": True})


class _TextFormatter(logging.Formatter):
    """A line for each request; what is for the operator stands as it is, to be pasted."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        return record.getMessage() if hasattr(record, "is_plain") else super().format(record)


class _JsonFormatter(logging.Formatter):
    """One object a line; a line feed in a message cannot begin another one."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **{name: getattr(record, name) for name in _FIELDS if hasattr(record, name)},
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
