"""Devices by InfiniCore's numbers."""

from __future__ import annotations

from enum import IntEnum

from qwen3_runtime.errors import EngineError

__all__ = ["DeviceType", "device_name"]


class DeviceType(IntEnum):
    """``infiniDevice_t``, by the names of ``libinfinicore_infer.py``."""

    DEVICE_TYPE_CPU = 0
    DEVICE_TYPE_NVIDIA = 1
    DEVICE_TYPE_CAMBRICON = 2
    DEVICE_TYPE_ASCEND = 3
    DEVICE_TYPE_METAX = 4
    DEVICE_TYPE_MOORE = 5
    DEVICE_TYPE_ILUVATAR = 6
    DEVICE_TYPE_KUNLUN = 7
    DEVICE_TYPE_HYGON = 8
    DEVICE_TYPE_QY = 9
    DEVICE_TYPE_ALI = 10

    @property
    def device(self) -> str:
        """The name of its device description, as after ``--dev``."""
        return self.name.removeprefix("DEVICE_TYPE_").lower()


def device_name(device: object) -> str:
    """Returns the name of a device given by name, number or ``DeviceType``.

    Names are passed on as they are; whoever loads the device checks them.

    Raises:
        EngineError: It is neither a name nor a number there is.
    """
    if isinstance(device, str) and device:
        return device
    if isinstance(device, int) and not isinstance(device, bool):
        try:
            return DeviceType(device).device
        except ValueError:
            pass
    raise EngineError(
        "there is no such device",
        got=repr(device)[:80],
        expected="a name such as 'cpu', 'nvidia' or 'ascend', or a DeviceType",
    )
