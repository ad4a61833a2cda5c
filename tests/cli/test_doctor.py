"""``doctor`` as a user types it."""

from __future__ import annotations

import re


def statuses(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not re.match(r" +mend: ", line)]
    return [line.split()[0] for line in lines]


def test_this_machine_can_build_for_the_cpu(cli, tmp_path):
    """The tests themselves run here, so nothing may be missing."""
    result = cli("doctor", INFINI_ROOT="")
    text = result.succeeded()
    assert result.stderr == ""
    assert set(statuses(text)) == {"ok", "note"}
    for subject in ("compiler", "CMake", "--isa native", "memory", "disk", "cache", "hub cache"):
        assert re.search(rf"^(ok|note) +{subject}  ", text, re.MULTILINE), subject
    assert re.search(r"^note +INFINI_ROOT +not set", text, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_the_exit_code(cli):
    result = cli("doctor", CXX="no-such-compiler")
    assert result.code == 1
    assert statuses(result.stdout).count("missing") == 1
    assert re.search(r"^missing +compiler .*no-such-compiler.*\n +mend: ", result.stdout, re.M)


def test_a_device_without_its_library(cli):
    result = cli("doctor", "--dev", "mlu", INFINI_ROOT="", NEUWARE_HOME="/nowhere")
    assert result.code == 1
    assert "missing  INFINI_ROOT" in result.stdout
    assert "$NEUWARE_HOME = /nowhere" in result.stdout


def test_an_unknown_device(cli):
    assert "did you mean 'mlu'" in cli("doctor", "--dev", "mluu").refused()


def test_the_hub_is_said(cli):
    text = cli("doctor", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://mirror.test").succeeded()
    assert re.search(r"hub cache .*from http://mirror\.test; HF_HUB_OFFLINE is set", text)
