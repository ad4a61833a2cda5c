"""Hub ids for ``--model`` and ``LLM``, against a stub on this machine."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import command
from tests.hub.conftest import NOT_FETCHED, TINY
from tests.hub.stub import COMMIT, StubRepository

ASK = ["--token-ids", "1,2,3", "--max-tokens", "2", "--engine", "interpreter", "--max-model-len",
       "32", "--temperature", "0"]  # fmt: skip
WEIGHTS = "model.safetensors"


def generate(run, model=TINY, **environment):
    return run("generate", "--model", model, *ASK, **environment)


def snapshot(home: Path) -> Path:
    name = f"models--{TINY.replace('/', '--')}"
    return home / "hub" / name / "snapshots" / COMMIT


def blob_of(home: Path, content: bytes, ending: str = "") -> Path:
    digest = hashlib.sha256(content).hexdigest()
    return snapshot(home).parent.parent / "blobs" / f"{digest}{ending}"


def test_a_model_on_the_hub(run, hub, tmp_path, tiny_files):
    (tmp_path / "local").mkdir()
    for name, content in tiny_files.items():
        if "/" not in name and name not in NOT_FETCHED:
            (tmp_path / "local" / name).write_bytes(content)
    result = generate(run)
    tokens = result.succeeded()
    assert tokens == generate(run, "local").succeeded()
    assert (
        f"downloading {TINY}: {len(tiny_files[WEIGHTS]) / 1e6:.1f} MB of weights" in result.stderr
    )
    assert "Tiny-Model: ready" in result.stderr
    fetched = {file.name for file in snapshot(tmp_path / "hf").iterdir()}
    assert fetched == {"config.json", "generation_config.json", WEIGHTS}
    assert not [p for _, p, _ in hub.requests if any(p.endswith(name) for name in NOT_FETCHED)]


def test_a_second_time_asks_one_question(run, hub):
    first = generate(run)
    hub.requests.clear()
    second = generate(run)
    assert second.succeeded() == first.succeeded()
    assert "downloading" not in second.stderr
    about_models = [path for _, path, _ in hub.requests if TINY in path]
    assert about_models == [f"/api/models/{TINY}/revision/main"]


def test_a_commit_asks_nothing_the_second_time(run, hub):
    first = generate(run, f"{TINY}@{COMMIT}").succeeded()
    hub.requests.clear()
    assert generate(run, f"{TINY}@{COMMIT}").succeeded() == first
    assert hub.requests == []


def test_llm(run_python, hub):
    program = (
        "from qwen3_codegen import LLM\n"
        f"with LLM({TINY!r}, engine='interpreter', max_model_len=16, show_progress=False) as llm:\n"
        "    print(llm.spec.name, llm.logits([[1, 2]])[0].shape)\n"
    )
    assert run_python(program) == "Tiny-Model (2, 110000)\n"


def test_shards_that_the_index_names(run, hub, tmp_path, tiny_files):
    shards = {"weights-1.safetensors": tiny_files[WEIGHTS]}
    names = json.loads(
        tiny_files[WEIGHTS][8 : 8 + int.from_bytes(tiny_files[WEIGHTS][:8], "little")]
    )
    weight_map = {name: "weights-1.safetensors" for name in names if name != "__metadata__"}
    index = json.dumps({"weight_map": weight_map}).encode()
    files = {n: c for n, c in tiny_files.items() if n != WEIGHTS}
    hub.repositories[TINY].files = {**files, **shards, "model.safetensors.index.json": index}
    generate(run).succeeded()
    assert (snapshot(tmp_path / "hf") / "weights-1.safetensors").is_file()
    assert hub.asked_for("consolidated.safetensors") == []
    generate(run, HF_HUB_OFFLINE="1").succeeded()


def test_a_stopped_download_goes_on(run, hub, environment, tmp_path, tiny_files):
    """Killed in the middle, the next run asks for the rest only, and gets the same weights."""
    content = tiny_files[WEIGHTS]
    incomplete = blob_of(tmp_path / "hf", content, ".incomplete")
    hub.stop_after = len(content) - 100
    process = subprocess.Popen(
        command(["generate", "--model", TINY, *ASK]), env=environment, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (incomplete.is_file() and incomplete.stat().st_size > 0):
        assert time.monotonic() < deadline, process.poll()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    kept = incomplete.stat().st_size
    assert 0 < kept < len(content)
    hub.stop_after = None
    hub.requests.clear()
    generate(run).succeeded()
    assert hub.asked_for(f"/{WEIGHTS}")[-1] == f"bytes={kept}-"
    assert (snapshot(tmp_path / "hf") / WEIGHTS).read_bytes() == content
    assert not incomplete.exists()


def test_an_interrupted_download_says_so(hub, environment, tmp_path, tiny_files):
    hub.stop_after = len(tiny_files[WEIGHTS]) - 100
    process = subprocess.Popen(
        command(["generate", "--model", TINY, *ASK]), env=environment, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if "downloading" in line:
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr


@pytest.mark.parametrize("half", ["less", "all", "more"])
def test_what_lies_there_already(half, run, hub, tmp_path, tiny_files):
    content = tiny_files[WEIGHTS]
    size = {"less": 1000, "all": len(content), "more": len(content) + 1}[half]
    incomplete = blob_of(tmp_path / "hf", content, ".incomplete")
    incomplete.parent.mkdir(parents=True)
    incomplete.write_bytes((content + b"?")[:size])
    generate(run).succeeded()
    ranges = hub.asked_for(f"/{WEIGHTS}")
    assert ranges[-1:] == {"less": ["bytes=1000-"], "all": [], "more": [None]}[half]
    assert (snapshot(tmp_path / "hf") / WEIGHTS).read_bytes() == content


def test_a_server_that_starts_again_instead(run, hub, tmp_path, tiny_files):
    content = tiny_files[WEIGHTS]
    incomplete = blob_of(tmp_path / "hf", content, ".incomplete")
    incomplete.parent.mkdir(parents=True)
    incomplete.write_bytes(b"x" * 5000)
    hub.ignores_ranges = True
    generate(run).succeeded()
    assert (snapshot(tmp_path / "hf") / WEIGHTS).read_bytes() == content


def test_damaged_weights_are_thrown_away(run, hub, tmp_path, tiny_files):
    hub.damages_weights = True
    error = generate(run).refused()
    assert "damaged" in error
    assert "sha256" in error
    assert not (snapshot(tmp_path / "hf") / WEIGHTS).exists()
    assert not blob_of(tmp_path / "hf", tiny_files[WEIGHTS], ".incomplete").exists()
    hub.damages_weights = False
    generate(run).succeeded()


def test_offline(run, hub):
    error = generate(run, HF_HUB_OFFLINE="1").refused()
    assert "HF_HUB_OFFLINE is set" in error
    assert hub.requests == []
    first = generate(run).succeeded()
    hub.requests.clear()
    offline = generate(run, HF_HUB_OFFLINE="1")
    assert offline.succeeded() == first
    assert hub.requests == []


def test_offline_with_half_a_model(run, hub, tmp_path):
    generate(run).succeeded()
    (snapshot(tmp_path / "hf") / WEIGHTS).unlink()
    assert "not in the hub's cache" in generate(run, HF_HUB_OFFLINE="1").refused()


def test_a_hub_that_does_not_answer(run, hub):
    nowhere = "http://127.0.0.1:9"
    started = time.monotonic()
    error = generate(run, HF_ENDPOINT=nowhere).refused()
    assert time.monotonic() - started < 20
    assert "cannot be reached" in error
    assert nowhere in error
    assert "HF_ENDPOINT" in error
    first = generate(run).succeeded()
    later = generate(run, HF_ENDPOINT=nowhere)
    assert later.succeeded() == first
    assert "note: the hub cannot be reached; what was downloaded before is taken" in later.stderr


def test_a_hub_that_is_down(run, hub):
    first = generate(run).succeeded()
    hub.status = 503
    assert generate(run).succeeded() == first
    hub.status = 418
    assert "418" in generate(run).refused()


def test_a_model_that_is_not_there(run, hub):
    error = generate(run, "somebody/Tinny").refused()
    assert "neither a folder nor a model on the hub called 'somebody/Tinny'" in error
    assert hub.endpoint in error


@pytest.mark.parametrize("offline", ["0", "1"])
@pytest.mark.parametrize("model", ["Qwen/Qwen3-1.5B", "Qwen/Qwen3-1.5B-Instruct"])
def test_near_misses(model, offline, run, hub):
    error = generate(run, model, HF_HUB_OFFLINE=offline).refused()
    assert "did you mean 'Qwen/Qwen3-1.7B'? Its spec here is qwen3-1.7b" in error


def test_a_name_that_is_right_is_not_corrected(run, hub):
    for offline in ("0", "1"):
        assert (
            "did you mean" not in generate(run, "Qwen/Qwen3-8B", HF_HUB_OFFLINE=offline).refused()
        )


def test_a_revision_that_is_not_there(run, hub):
    error = generate(run, f"{TINY}@v9").refused()
    assert "no revision 'v9'" in error


def test_a_gated_model(run, hub):
    hub.repositories[TINY].is_gated = True
    error = generate(run).refused()
    assert "accepted its terms" in error
    assert f"{hub.endpoint}/{TINY}" in error
    assert "hf auth login" in error


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["config.json", "pytorch_model.bin"], "pickles"),
        (["config.json", "tiny-Q4.gguf"], "hf download somebody/Tiny-Model tiny-Q4.gguf"),
        (["README.md"], "got:      README.md"),
        ([], "no files"),
    ],
)
def test_repositories_that_are_no_checkpoints(files, says, run, hub, tmp_path):
    hub.repositories[TINY] = StubRepository(dict.fromkeys(files, b"{}"))
    error = generate(run).refused()
    assert says in error
    assert not (tmp_path / "hf" / "hub").exists()


@pytest.mark.parametrize(
    ("shard", "says"), [("absent.safetensors", "absent"), ("../../x.safetensors", "outside")]
)
def test_an_index_that_names_what_is_not_there(shard, says, run, hub, tiny_files):
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    files = {"config.json": tiny_files["config.json"], "model.safetensors.index.json": index}
    hub.repositories[TINY] = StubRepository(files)
    assert says in generate(run).refused()


def test_a_model_that_does_not_fit_the_disk(run, hub):
    hub.repositories[TINY].announced = {WEIGHTS: 10**18}
    error = generate(run).refused()
    assert "does not fit the disk" in error
    assert "1000000000.00 GB" in error
    assert hub.asked_for(f"/{WEIGHTS}") == []


def test_a_spec_is_no_checkpoint(run, hub):
    error = run("generate", "--model", "qwen3-1.7b", *ASK).refused()
    assert "qwen3-1.7b is a spec, which has no weights" in error
    assert "did you mean 'qwen3-1.7b'" in run("generate", "--model", "qwen3-1.5b", *ASK).refused()
    assert hub.requests == []
