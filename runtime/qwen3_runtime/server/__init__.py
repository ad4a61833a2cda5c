"""An OpenAI-compatible HTTP server in front of an engine that runs in a process of its own."""

from qwen3_runtime.server.app import create_app
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.serving import serve
from qwen3_runtime.server.settings import ServerSettings

__all__ = ["ServedModel", "ServerSettings", "create_app", "serve"]
