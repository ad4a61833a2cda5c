from __future__ import annotations

from pathlib import Path

import pytest

from qwen3_codegen.dtypes import DType
from qwen3_codegen.spec.device import device_names, load_device, parse_dtype
from tests.spec.descriptions import error_of

DEVICES = {
    "ali",
    "ascend",
    "cambricon",
    "cpu",
    "hygon",
    "iluvatar",
    "kunlun",
    "metax",
    "moore",
    "nvidia",
    "qy",
}


def test_all_devices_ship() -> None:
    assert set(device_names()) == DEVICES
    for name in DEVICES:
        device = load_device(name)
        assert (device.name, device.infinicore) == (name, name)
        assert device.description
        assert DType.F32 in device.dtypes


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("mlu", "cambricon"),
        ("MLU", "cambricon"),
        ("cuda", "nvidia"),
        ("npu", "ascend"),
        ("maca", "metax"),
        ("musa", "moore"),
    ],
)
def test_usual_aliases(alias: str, name: str) -> None:
    device = load_device(alias)
    assert (device.name, device.label) == (name, alias.lower())
    assert device.is_host is (name == "cpu")


def test_no_alias_names_two_devices() -> None:
    devices = [load_device(name) for name in device_names()]
    names = [name for device in devices for name in (device.name, *device.aliases)]
    assert len(names) == len(set(names))


def test_a_near_miss_is_suggested() -> None:
    message = error_of(load_device, "cambricom")
    assert message.startswith("unknown device 'cambricom'\n  expected: a path ending in .yaml, or ")
    assert message.endswith("hint:     did you mean 'cambricon'?")


def test_a_device_may_extend_another(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("device: mlu370\nextends: mlu\ndtypes: [float16]\n")
    (tmp_path / "next.yaml").write_text("device: mlu590\nextends: mine.yaml\n")
    mine, base = load_device(str(tmp_path / "mine.yaml")), load_device("cambricon")
    assert (mine.name, mine.infinicore, mine.dtypes) == ("mlu370", "cambricon", (DType.F16,))
    assert (mine.release, mine.lowering) == (base.release, base.lowering)
    assert load_device(str(tmp_path / "next.yaml")).dtypes == (DType.F16,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("device: a/b\ninfinicore: cpu", ":1: 'device' may hold letters, digits"),
        ("device: a", ":1: 'infinicore' is missing"),
        (
            "device: a\ninfinicore: cpu\nlowring: x",
            ":3: unknown key 'lowring' in a device descript",
        ),
        ("device: a\ninfinicore: cpu\nlowering: x", ":3: unknown lowering 'x'"),
        ("device: a\ninfinicore: cpu\ninfinicore_release: 1.0.0", ":3: unknown infinicore_release"),
        ("device: a\ninfinicore: cpu\ndtypes: [int8]", ":3: unknown dtype 'int8'"),
        ("device: a\nextends: self.yaml", ":2: device descriptions extend each other"),
        ("device: a\nextends: none.yaml", ":2: device description not found"),
        ("device: a\nextends: cambricom", ":2: unknown device 'cambricom'"),
        ("device: a\ninfinicore: cuda", ":2: InfiniCore has no device 'cuda'"),
        ("device: a\nextends: cpu\ninfinicore: nvidai", ":3: InfiniCore has no device 'nvidai'"),
        ("device: a\nextends: cpu\ndtypes: []", ":3: 'dtypes' names no dtype"),
        (
            "device: a\nextends: mlu\nlowering: native",
            ":3: InfiniCore's device 'cambricon' has no native lowering",
        ),
        ("device: a\nextends: cpu\ninfinicore: moore", ":3: InfiniCore's device 'moore' has no"),
        ("device: cpu\nextends: mlu", ":1: 'cpu' is the name of another device"),
        ("device: mlu\ninfinicore: nvidia", ":1: 'mlu' is the name of another device"),
    ],
)
def test_a_wrong_description_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "self.yaml"
    file.write_text(text)
    error = error_of(load_device, str(file))
    assert error.startswith(f"{file}{message}" if message.startswith(":") else message)


def test_a_description_without_a_name_is_one_mistake(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: cambricon\n")
    message = error_of(load_device, str(file))
    assert message == f"{file}:1: a device description has no 'device'\n  expected: text"


def test_a_variant_may_keep_a_device_s_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("device: mlu\nextends: cambricon\ndtypes: [float16]\n")
    assert load_device(str(tmp_path / "mine.yaml")).name == "mlu"
    text = "device: card\nextends: cpu\ninfinicore: moore\nlowering: portable\n"
    (tmp_path / "mine.yaml").write_text(text)
    assert load_device(str(tmp_path / "mine.yaml")).lowering == "portable"


def test_a_device_of_one_release_only_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("device: mine\ninfinicore: hygon\n")
    assert load_device(str(tmp_path / "mine.yaml")).infinicore == "hygon"


def test_a_folder_is_no_description(tmp_path: Path) -> None:
    folder = tmp_path / "mine.yaml"
    folder.mkdir()
    message = error_of(load_device, str(folder))
    assert message == f"{folder}: a device description is a file\n  got:      a folder"


def test_names_of_dtypes() -> None:
    assert parse_dtype("bf16") is parse_dtype("bfloat16") is DType.BF16
    assert error_of(parse_dtype, "bf61", "--dtype").startswith("--dtype: unknown dtype 'bf61'")
