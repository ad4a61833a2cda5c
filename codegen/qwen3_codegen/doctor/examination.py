"""All findings in the order they are printed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from qwen3_codegen.doctor.finding import Finding, missing
from qwen3_codegen.doctor.python_environment import python_findings

if TYPE_CHECKING:
    from qwen3_codegen.spec.device import DeviceSpec


def examine(dev: str, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Returns what this machine has of what engines for a device need, found one by one.

    Args:
        dev: Device name, alias or YAML file.
        environment: As ``os.environ``.

    Raises:
        SpecError: There is no such device; nothing was looked at.
    """
    try:
        from qwen3_codegen.spec.device import load_device
    except ImportError:  # the packages are looked at first and say which one
        return python_findings()
    return _findings(load_device(dev), environment)


def _findings(device: DeviceSpec, environment: Mapping[str, str]) -> Iterator[Finding]:
    yield from python_findings()
    # A package that is missing must not end the report that says so.
    yield from _guarded("build tools", lambda: _build_tools(environment))
    yield from _guarded("machine", _machine)
    yield from _guarded("device", lambda: _device(device, environment))
    yield from _guarded("caches", lambda: _caches(environment))


def _guarded(subject: str, findings: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from findings()
    except ImportError as error:
        yield missing(subject, str(error), "pip install --force-reinstall qwen3-codegen")


def _build_tools(environment: Mapping[str, str]) -> Iterable[Finding]:
    from qwen3_codegen.doctor.build_tools import build_tool_findings

    return build_tool_findings(environment)


def _machine() -> Iterator[Finding]:
    from qwen3_codegen.doctor.machine import disk_finding, memory_finding, processor_findings
    from qwen3_codegen.paths import cache_dir

    yield from processor_findings()
    yield memory_finding()
    yield disk_finding(cache_dir())


def _device(device: DeviceSpec, environment: Mapping[str, str]) -> Iterable[Finding]:
    from qwen3_codegen.doctor.device_findings import device_findings

    return device_findings(device, environment)


def _caches(environment: Mapping[str, str]) -> Iterable[Finding]:
    from qwen3_codegen.doctor.caches import cache_findings

    return cache_findings(environment)
