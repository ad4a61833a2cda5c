"""What a reader may do with one input: answer or refuse in our words, soon, and touch nothing."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qwen3_codegen.errors import CodegenError
from qwen3_runtime.errors import RuntimeFault

__all__ = ["Failure", "Guard", "bound_memory", "peak_bytes"]

_MAX_MESSAGE = 300_000
"""Characters: a file of ours can have many things wrong with it, and each is named."""
_REASON = re.compile(r": [A-Za-z]+")
"""What a message that passes on another's words begins them with: ``: ZeroDivisionError``."""
_UNPRINTABLE = re.compile("[^\\n\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")
_ACTIONS = frozenset(
    {
        "os.chmod", "os.exec", "os.fork", "os.link", "os.mkdir", "os.posix_spawn", "os.remove",
        "os.rename", "os.rmdir", "os.symlink", "os.system", "os.truncate", "pickle.find_class",
        "shutil.rmtree", "socket.connect", "socket.getaddrinfo", "subprocess.Popen",
        "ctypes.dlopen",
    }
)  # fmt: skip
"""Audit events of what no input may bring about."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Overtime(BaseException):
    """Not an Exception, so that no reader takes it for a fault of its input."""


class _Forbidden(BaseException):
    """The same for an action."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What an input brought about instead of an answer or a refusal."""

    kind: str
    """Exception and innermost place, equal for inputs that show the same mistake."""
    trace: str


class Guard:
    """Runs a reader on inputs of one process, which must use no timer of its own.

    Args:
        seconds: Processor time one input may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._inside = False
        warnings.simplefilter("error")  # a user would see a line of our source
        signal.signal(signal.SIGPROF, self._stop)
        sys.addaudithook(self._audit)

    def outcome(self, read: Callable[[bytes], None], data: bytes) -> str | Failure:
        """Returns ``"answer"``, the first words of a refusal and of its reason, or a failure."""
        self._inside = True
        signal.setitimer(signal.ITIMER_PROF, self._seconds)
        try:
            read(data)
        except (CodegenError, RuntimeFault) as error:
            return self._refusal(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is, it should not have come out
            return _failure(error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._inside = False
        return "answer"

    def _refusal(self, error: CodegenError | RuntimeFault) -> str | Failure:
        text = str(error)
        if len(text) > _MAX_MESSAGE or _UNPRINTABLE.search(text):
            shown = f"a message of {len(text)} characters: {text[:300]!r}"
            return Failure(f"message {type(error).__name__}", shown)
        reason = _REASON.search(error.message)
        return f"{type(error).__name__} {error.message[:24]}{reason[0] if reason else ''}"

    def _stop(self, *_: object) -> None:
        if self._inside:
            raise _Overtime(f"more than {self._seconds} s of processor time")

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self._inside:
            return
        if event == "open":
            mode, flags = arguments[1:3]
            if isinstance(flags, int) and flags & _WRITES and mode is not None:
                raise _Forbidden(f"opens {arguments[0]!r} for writing")
        elif event in _ACTIONS:
            raise _Forbidden(f"{event} {arguments!r}"[:300])


def _failure(error: BaseException) -> Failure:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "qwen3_" in frame.filename] or list(frames)
    name = type(error).__name__.strip("_")
    # Time can run out anywhere inside the same loop: its function says which.
    at = ours[-1].name if isinstance(error, _Overtime) else ours[-1].lineno
    trace = "".join(
        traceback.format_exception(type(error), error, error.__traceback__, chain=False)
    )
    return Failure(f"{name} {Path(ours[-1].filename).name}:{at}", trace[-4000:])


def bound_memory(num_bytes: int) -> None:
    """Lets this process take so many bytes of address space more than it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + num_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def peak_bytes() -> int:
    """Returns the most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
