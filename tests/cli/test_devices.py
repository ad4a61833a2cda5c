"""``devices`` as a user types it."""

from __future__ import annotations

import re

from qwen3_codegen.spec.device import device_names


def rows(text: str) -> dict[str, list[list[str]]]:
    """The rows of each table by its first column; an empty one means the one above."""
    tables: dict[str, list[list[str]]] = {}
    for part in text.split("\n\n"):
        current = ""
        for line in part.splitlines()[1:]:
            cells = re.split(r" {2,}", line)
            current = cells[0] or current
            tables.setdefault(current, []).append(cells[1:])
    return tables


def test_devices_and_ops(cli):
    result = cli("devices")
    text = result.succeeded()
    assert result.stderr == ""
    table = rows(text)
    assert set(device_names()) <= set(table)
    assert table["cambricon"][0][:3] == ["mlu", "0.1.0", "bfloat16, float16, float32"]
    assert ["ascend, cambricon", "gemm, rearrange (decomposed)"] in table["scale"]
    assert any(cells[1].startswith("unsupported: ") for cells in table["gelu"])


def test_the_ops_of_a_model(cli):
    table = rows(cli("devices", "--spec", "qwen3-1.7b").succeeded())
    assert table["cambricon"] == [["bfloat16", "0.1.0", "yes"]]
    assert table["ascend"] == [["float16", "0.1.0", "yes"]]
    assert "swiglu" in table
    assert table["rope"][0][0] == "all but cpu"  # whose own kernels take it with the attention
    assert [row[0] for row in table["rotary_attention"]] == ["cpu"]
    assert "moe" not in table


def test_a_model_that_cannot_be_built(cli):
    result = cli("devices", "--spec", "qwen3-30b-a3b", "--dev", "mlu")
    assert result.code == 1
    table = rows(result.stdout)
    assert re.search(r"no: .*qwen3_moe\.yaml:\d+: ", table["cambricon"][0][2])
    assert "unsupported: " in table["moe"][0][1]
    assert "unsupported" not in table["linear"][0][1]
    assert cli("devices", "--spec", "qwen3-30b-a3b").code == 0
    assert cli("devices", "--spec", "qwen3-1.7b", "--dev", "mlu").code == 0


def test_a_device_of_ones_own(cli, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "device: mine\nextends: cambricon\ninfinicore_release: 2025-08\n", encoding="utf-8"
    )
    table = rows(cli("devices", "--dev", "mine.yaml").succeeded())
    assert table["mine"][0][0] == "2025-08"
    assert table["mine"][0][-1] == "Cambricon MLU; portable lowering"
    assert table["swiglu"] == [["mine", "swiglu (the device has it)"]]
    (tmp_path / "mine.yaml").write_text("device: mine\ninfinicore: cambricon\n", encoding="utf-8")
    table = rows(cli("devices", "--dev", "mine.yaml").succeeded())
    assert table["mine"][0][-1] == "portable lowering"


def test_another_release(cli):
    table = rows(cli("devices", "--infinicore-api", "2025-08").succeeded())
    assert "InfiniCore 2025-08 has no device 'hygon'" in table["hygon"][0][-1]
    error = cli("devices", "--infinicore-api", "2025-8").refused()
    assert "did you mean '2025-08'" in error


def test_a_spec_that_is_not_there(cli):
    assert "nowhere" in cli("devices", "--spec", "nowhere").refused()
    assert "did you mean 'mlu'" in cli("devices", "--dev", "mluu").refused()
