"""Device descriptions: YAML in, frozen ``DeviceSpec`` out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.infinicore.api import DEFAULT_RELEASE, RELEASES, load_api
from qwen3_codegen.paths import modelspecs_dir
from qwen3_codegen.spec import kinds, schema
from qwen3_codegen.spec.architecture import check_name
from qwen3_codegen.spec.kinds import check_kind
from qwen3_codegen.spec.problems import Problems
from qwen3_codegen.spec.sections import Section
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.yaml_loader import read_yaml

__all__ = ["DeviceSpec", "device_names", "load_device", "parse_dtype"]

_SUFFIXES = (".yaml", ".yml")
_MEANT = {"gpu": "nvidia, or the name of another maker's device"}
"""Hints for names that mean no one device."""
_LOWERINGS = ("portable", "native")
_HOST = "cpu"
"""What InfiniCore calls the CPU itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """A device engines are generated for."""

    name: str
    label: str
    """The name it was asked for by (``mlu``); part of the engine's folder name."""
    description: str
    """Empty where neither the file nor what it extends has one."""
    aliases: tuple[str, ...]
    infinicore: str
    """The device in InfiniCore's API table."""
    lowering: str
    release: str
    """InfiniCore API release used unless another is asked for."""
    dtypes: tuple[DType, ...]
    transpose_linear_weights: bool
    """Keep matrices as [in, out], for devices whose gemm wants that."""
    location: SourceLocation

    @property
    def is_host(self) -> bool:
        """Whether the device is the CPU itself, which needs no emulation."""
        return self.infinicore == _HOST


def device_title(name: str, infinicore: str) -> str:
    """Returns what people are told a device is: ``cambricon``, ``mine (cambricon)``."""
    return name if name == infinicore else f"{name} ({infinicore})"


def device_names() -> list[str]:
    """Returns the names of the shipped devices, sorted."""
    return sorted(file.stem for file in (modelspecs_dir() / "devices").glob("*.yaml"))


def load_device(reference: str) -> DeviceSpec:
    """Loads a device by name, alias, or path of a YAML file.

    Raises:
        SpecError: There is no such device, or its description is wrong.
    """
    return _find_device(reference)


def _find_device(reference: str, where: object | None = None) -> DeviceSpec:
    if reference.endswith(_SUFFIXES):
        file = Path(reference)
        if not os.path.isfile(file):
            raise SpecError(
                "a device description is a file"
                if os.path.isdir(file)
                else "device description not found",
                where=reference,
                got="a folder" if os.path.isdir(file) else None,
            )
        return _read_device(file, reference)
    for device in _shipped(modelspecs_dir()):
        if reference.lower() in (device.name, *device.aliases):
            return replace(device, label=reference.lower())
    known = [
        name for device in _shipped(modelspecs_dir()) for name in (device.name, *device.aliases)
    ]
    raise SpecError(
        f"unknown device '{reference}'",
        where=where,
        expected=f"a path ending in .yaml, or one of {', '.join(known)}",
        hint=_MEANT.get(reference.lower()) or nearest(reference, known),
    )


@lru_cache(maxsize=4)
def _shipped(folder: Path) -> tuple[DeviceSpec, ...]:
    return tuple(
        _read_device(
            folder / "devices" / f"{name}.yaml", f"modelspecs/devices/{name}.yaml", is_shipped=True
        )
        for name in device_names()
    )


def _read_device(
    file: Path, shown: str, children: tuple[Path, ...] = (), *, is_shipped: bool = False
) -> DeviceSpec:
    """Reads a description; ``children`` are the files that extend it, the latest last."""
    root = read_yaml(file, shown)
    check_kind(root, kinds.DEVICE)
    problems = Problems()
    section = Section(root, kinds.DEVICE.title, schema.DEVICE, problems)
    base = _parent(section, file, (*children, file.resolve()))
    name = section.text("device")
    if "device" in section:
        with problems.collect():
            check_name(name, section.where("device"), "device")
    infinicore = section.text("infinicore") or (base.infinicore if base else "")
    if not infinicore:
        problems.add(SpecError("'infinicore' is missing", where=root.location))
    elif "infinicore" in section and not is_shipped:
        _check_infinicore(infinicore, section)
    lowering = _one_of(section, "lowering", _LOWERINGS, base.lowering if base else "portable")
    release = _one_of(
        section, "infinicore_release", RELEASES, base.release if base else DEFAULT_RELEASE
    )
    dtypes = tuple(_dtype(text, section, problems) for text in section.texts("dtypes"))
    if "dtypes" in section and not section.items("dtypes"):
        problems.add(
            SpecError(
                "'dtypes' names no dtype", where=section.where("dtypes"), expected="one at least"
            )
        )
    if not is_shipped and not problems:
        _check_name_is_free(name, infinicore, section)
        _check_lowering(lowering, infinicore, section)
    transpose = section.scalar("transpose_linear_weights", bool)
    device = DeviceSpec(
        name=name,
        label=name,
        description=section.text("description") or (base.description if base else ""),
        aliases=section.texts("aliases"),
        infinicore=infinicore,
        lowering=lowering,
        release=release,
        dtypes=dtypes or (base.dtypes if base else tuple(DType)[:3]),
        transpose_linear_weights=bool(base and base.transpose_linear_weights)
        if transpose is None
        else transpose,
        location=root.location,
    )
    problems.raise_any()
    return device


def _parent(section: Section, file: Path, children: tuple[Path, ...]) -> DeviceSpec | None:
    """Returns the device a description extends; a path starts from the description's folder."""
    reference = section.text("extends")
    if not reference.endswith(_SUFFIXES):
        return _find_device(reference, section.where("extends")) if reference else None
    parent = file.parent / reference
    where = section.where("extends")
    if not os.path.isfile(parent):
        raise SpecError("device description not found", where=where, got=reference)
    if parent.resolve() in children:
        raise SpecError("device descriptions extend each other", where=where, got=reference)
    return _read_device(parent, str(parent), children)


def _check_infinicore(name: str, section: Section) -> None:
    """Checks that some release has the device; which one is used, an option may still decide."""
    known = dict.fromkeys(device for release in RELEASES for device in load_api(release).devices)
    if name not in known:
        section.problems.add(
            SpecError(
                f"InfiniCore has no device '{name}'",
                where=section.where("infinicore"),
                expected=", ".join(known),
                hint=nearest(name, known),
            )
        )


def _check_name_is_free(name: str, infinicore: str, section: Section) -> None:
    """Checks that a name says what it does elsewhere: folders and notes call the engine by it."""
    for shipped in _shipped(modelspecs_dir()):
        if name.lower() in (shipped.name, *shipped.aliases) and infinicore != shipped.infinicore:
            section.problems.add(
                SpecError(
                    f"'{name}' is the name of another device",
                    where=section.where("device"),
                    got=f"infinicore: {infinicore}",
                    expected=f"a name of its own, or infinicore: {shipped.infinicore}",
                )
            )


def _check_lowering(lowering: str, infinicore: str, section: Section) -> None:
    """Checks that the device has the lowering; kernels of our own run on the CPU alone."""
    if lowering == "native" and infinicore != _HOST:
        given = next((key for key in ("lowering", "infinicore") if key in section), "device")
        section.problems.add(
            SpecError(
                f"InfiniCore's device '{infinicore}' has no native lowering",
                where=section.where(given),
                expected="lowering: portable",
            )
        )


def _one_of(section: Section, key: str, known: tuple[str, ...], default: str) -> str:
    value = section.text(key)
    if not value:
        return default
    if value not in known:
        section.problems.add(
            SpecError(
                f"unknown {key} '{value}'",
                where=section.where(key),
                expected=", ".join(known),
                hint=nearest(value, known),
            )
        )
    return value


def _dtype(text: str, section: Section, problems: Problems) -> DType:
    with problems.collect():
        return parse_dtype(text, section.where("dtypes"))
    return DType.F32


_DTYPE_NAMES = {
    "float32": DType.F32,
    "f32": DType.F32,
    "fp32": DType.F32,
    "bfloat16": DType.BF16,
    "bf16": DType.BF16,
    "float16": DType.F16,
    "f16": DType.F16,
    "fp16": DType.F16,
    "half": DType.F16,
}


def parse_dtype(text: str, where: object | None = None) -> DType:
    """Returns the dtype of a name as users write it (``bf16``, ``bfloat16``).

    Raises:
        SpecError: There is no such dtype.
    """
    if text not in _DTYPE_NAMES:
        raise SpecError(
            f"unknown dtype '{text}'",
            where=where,
            expected=", ".join(_DTYPE_NAMES),
            hint=nearest(text, _DTYPE_NAMES),
        )
    return _DTYPE_NAMES[text]
