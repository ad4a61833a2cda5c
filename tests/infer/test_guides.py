"""What the InfiniCore-Infer guides show runs: only import line, path and device are changed.

Their three guides' Python snippets stand here as they are. Of their shell lines, those of the two
scripts run here too; the ``curl`` line is the server's (its tests send it), and what installs,
builds or downloads has its row in the README.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3_codegen import LLM, SamplingParams
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.model_size import model_size
from qwen3_codegen.spec.catalog import load_model
from qwen3_runtime.errors import EngineError
from qwen3_runtime.launch_server import serve_arguments
from qwen3_runtime.qwen3 import Qwen3ForCausalLM
from tests.docs.markdown import read_document
from tests.project.source_tree import ROOT

IMPORTS = {
    "from scripts.qwen3 import": "from qwen3_runtime.qwen3 import",
    "from scripts.infer_task import": "from qwen3_runtime.infer_task import",
    "from jiuge import": "from qwen3_runtime.jiuge import",
    "from libinfinicore_infer import": "from qwen3_runtime.libinfinicore_infer import",
    # This guide uses DeviceType, too, and forgot to import it.
    "from qwen3 import": "from qwen3_runtime.qwen3 import DeviceType,",
}
PATHS = (
    "./models/qwen3-1.5b",
    "./models/qwen3-7b",
    "/path/to/qwen3-model",
    "/path/to/qwen3-1.7b",
)

BASIC = """
#!/usr/bin/env python3
from scripts.qwen3 import Qwen3ForCausalLM

# 加载模型
model = Qwen3ForCausalLM(
    model_dir_path="./models/qwen3-1.5b",
    device_type="cpu",  # 或 "nvidia", "ascend" 等
    ndev=1,             # 设备数量
    max_tokens=512      # 最大序列长度
)

# 生成文本
prompt = "你好，请介绍一下人工智能的发展历史。"
output, avg_time = model.generate(prompt, max_steps=100)

print(f"生成结果: {output}")
print(f"平均推理时间: {avg_time*1000:.2f}ms per token")
"""

BATCH = """
#!/usr/bin/env python3
from scripts.qwen3 import Qwen3ForCausalLM
from scripts.infer_task import InferTask

# 加载模型
model = Qwen3ForCausalLM("./models/qwen3-1.5b", device_type="cpu")

# 准备多个推理任务
prompts = [
    "介绍一下深度学习",
    "What is machine learning?",
    "解释量子计算原理"
]

tasks = []
for i, prompt in enumerate(prompts):
    tokens = model.tokenizer.encode(prompt)
    task = InferTask(
        id=i,
        tokens=tokens,
        max_tokens=model.max_context_len(),
        temperature=0.7,
        topk=40,
        topp=0.8,
        end_tokens=model.eos_token_id
    )
    # 绑定 KV Cache
    kv_cache = model.create_kv_cache()
    task.bind_kvcache(kv_cache, 0)
    tasks.append(task)

# 批量推理
outputs = model.batch_infer_one_round(tasks)
for i, output_token in enumerate(outputs):
    print(f"Task {i} output token: {output_token}")
    
# 清理资源
for task in tasks:
    task.kvcache().drop(model)
"""

TOKENIZER = """
# 调试分词器
tokenizer = model.tokenizer
problematic_tokens = [101325, 101283, 151645]

for token_id in problematic_tokens:
    try:
        decoded = tokenizer.decode([token_id])
        print(f"Token {token_id}: '{decoded}'")
    except Exception as e:
        print(f"Token {token_id}: Error - {e}")
"""

TWO_DEVICES = """
# 多 GPU 推理
model = Qwen3ForCausalLM(
    model_dir_path="./models/qwen3-7b",
    device_type="nvidia",
    ndev=2,  # 使用 2 个 GPU
    max_tokens=2048
)
"""

CONFIGURATION = """
# 修改模型配置
config_overrides = {
    "sliding_window": 4096,
    "max_position_embeddings": 32768,
    "layer_types": ["full_attention"] * 32  # 强制使用全注意力
}

# 在加载前修改配置文件
import json
with open("./models/qwen3-1.5b/config.json", "r") as f:
    config = json.load(f)
config.update(config_overrides)
with open("./models/qwen3-1.5b/config.json", "w") as f:
    json.dump(config, f, indent=2)
"""

QUANTIZED = """
# 启用 INT8 量化 (实验性功能)
model = Qwen3ForCausalLM(
    model_dir_path="./models/qwen3-1.5b",
    device_type="cpu",
    quantization="int8"  # 需要量化后的模型
)
"""

JIUGE = """
from jiuge import JiugeForCauslLM
from libinfinicore_infer import DeviceType

model = JiugeForCauslLM("/path/to/qwen3-model", DeviceType.DEVICE_TYPE_CPU, 1)
output, avg_time = model.generate("你好，请介绍一下自己", max_steps=100)
model.destroy_model_instance()
"""

SIZES = """
{
    "num_hidden_layers": 26,     # Calculated for ~1.7B parameters
    "hidden_size": 2048,         # Adjusted for 1.7B model size
    "num_attention_heads": 32,   # Adjusted accordingly
    "num_key_value_heads": 32,   # Assume same as attention heads
    "intermediate_size": 6144,   # Adjusted for 1.7B model size
    "vocab_size": 151936,        # From README - Qwen3 specific
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
"""

USAGE = """
from qwen3 import Qwen3ForCausalLM

# Load model
model = Qwen3ForCausalLM("/path/to/qwen3-1.7b", device_type=DeviceType.DEVICE_TYPE_CPU)

# Generate text
output = model.generate("Hello, world!", max_steps=50, temperature=0.7)
print(output)
"""


def adapted(snippet: str, folder: Path) -> str:
    for old, new in IMPORTS.items():
        snippet = snippet.replace(f"\n{old} ", f"\n{new} ")
    for path in PATHS:
        snippet = snippet.replace(path, str(folder))
    return snippet


def run(snippet: str, folder: Path, **names: Any) -> dict[str, Any]:
    """Runs a snippet and returns its variables."""
    exec(compile(adapted(snippet, folder), "<guide>", "exec"), names)
    return names


def greedy_answer(llm: LLM, text: str, max_tokens: int) -> str:
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    return llm.chat([{"role": "user", "content": text}], params).text


# ---- Python ---------------------------------------------------------------------------------


@pytest.mark.compile
def test_basic_inference(folder, llm, capsys):
    found = run(BASIC, folder)
    assert found["output"] == greedy_answer(llm, found["prompt"], 100)
    assert 0 < found["avg_time"] < 1
    assert found["model"].max_context_len() == 512
    printed = capsys.readouterr().out
    assert printed.startswith(f"{found['output']}\n生成结果: {found['output']}\n平均推理时间: ")
    assert printed.endswith("ms per token\n")


@pytest.mark.compile
def test_batch_inference(folder, llm, capsys):
    found = run(BATCH, folder)
    model, outputs = found["model"], found["outputs"]
    rows = [rows[-1] for rows in llm.logits([task.tokens for task in found["tasks"]])]
    for row, token in zip(rows, outputs, strict=True):
        assert token in nucleus(row, temperature=0.7, topk=40, topp=0.8)
    lines = [f"Task {i} output token: {token}" for i, token in enumerate(outputs)]
    assert capsys.readouterr().out.splitlines() == lines
    model.rounds.check_integrity()
    assert model.rounds._scheduler.running == []


def nucleus(row, *, temperature: float, topk: int, topp: float) -> set[int]:
    """Tokens that may be chosen: the likeliest of this mass among the ``topk`` likeliest."""
    order = np.argsort(-row)[:topk]
    weights = np.exp((row[order] - row.max()).astype(np.float64) / temperature)
    mass = np.cumsum(weights) / weights.sum()
    return set(order[: int(np.searchsorted(mass, topp)) + 1].tolist())


@pytest.mark.compile
def test_looking_at_tokens(folder, capsys):
    model = Qwen3ForCausalLM(folder, "cpu")
    run(TOKENIZER, folder, model=model)
    assert capsys.readouterr().out == "".join(
        f"Token {token}: ''\n" for token in (101325, 101283, 151645)
    )
    (end,) = model.eos_token_id
    run(TOKENIZER.replace("151645", str(end)), folder, model=model)
    assert f"Token {end}: '<|im_end|>'\n" in capsys.readouterr().out


def test_two_devices_are_refused(folder):
    with pytest.raises(CodegenError, match="several devices are not available") as caught:
        run(TWO_DEVICES, folder, Qwen3ForCausalLM=Qwen3ForCausalLM)
    assert caught.value.got == "ndev=2"


def test_int8_is_refused(folder):
    with pytest.raises(CodegenError, match="quantised engines are not available") as caught:
        run(QUANTIZED, folder, Qwen3ForCausalLM=Qwen3ForCausalLM)
    assert caught.value.got == "quant='int8'"


def test_an_edited_config(qwen3_folder, tmp_path):
    """The guide's list has 32 layers; for a model of another number both numbers are said."""
    folder = shutil.copytree(qwen3_folder, tmp_path / "model")
    run(CONFIGURATION, folder)
    with pytest.raises(CodegenError, match="layer_types") as caught:
        Qwen3ForCausalLM(folder, engine="interpreter")
    assert "32" in str(caught.value)
    assert "2" in str(caught.value).replace("32", "")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["layer_types"] = config["layer_types"][:2]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert Qwen3ForCausalLM(folder, engine="interpreter", max_tokens=2000).max_context_len() == 2000


@pytest.mark.compile
def test_jiuge(folder, llm):
    found = run(JIUGE, folder)
    assert found["output"] == greedy_answer(llm, "你好，请介绍一下自己", 100)
    assert 0 < found["avg_time"] < 1
    with pytest.raises(EngineError, match="the model was destroyed"):
        found["model"].generate("again", max_steps=1)


def test_the_guessed_sizes_are_fields_we_know():
    """They are read as they are; that they are not Qwen3-1.7B's, the README says."""
    sizes = ast.literal_eval(SIZES)
    guessed = load_model("qwen3-1.7b", overrides={k: str(v) for k, v in sizes.items()})
    published = load_model("qwen3-1.7b")
    theta = sizes.pop("rope_theta")
    assert guessed.rope["rope"].inv_freq[1] == pytest.approx(theta ** (-2 / 128))
    assert published.rope["rope"].inv_freq[1] == pytest.approx(1e6 ** (-2 / 128))
    assert {key: guessed.config[key] for key in sizes} == sizes
    assert {key for key in sizes if published.config[key] != sizes[key]} == {
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
    }
    assert model_size(published).num_parameters != model_size(guessed).num_parameters


@pytest.mark.compile
def test_usage(folder, llm, capsys):
    found = run(USAGE, folder)
    text, seconds = found["output"]
    assert text == greedy_answer(llm, "Hello, world!", 50)  # topk is 1 unless told, as there
    assert capsys.readouterr().out == f"{text}\n{(text, seconds)}\n"


# ---- shell ----------------------------------------------------------------------------------

GUIDE_VARIABLES = {
    "OMP_NUM_THREADS": "8",
    "OMP_PROC_BIND": "true",
    "CUDA_VISIBLE_DEVICES": "0",
    "TORCH_DTYPE": "float16",
}


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def python(*arguments: str) -> Ended:
    done = subprocess.run(
        [sys.executable, "-X", "utf8", *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **GUIDE_VARIABLES},
        timeout=300,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.compile
@pytest.mark.parametrize(
    "line",
    ["-m qwen3_runtime.qwen3 DIR cpu", "-m qwen3_runtime.jiuge --cpu DIR 1"],
)
def test_the_scripts(line, folder, llm):
    """``python scripts/qwen3.py ./models/qwen3-1.5b cpu``, with the variables the guides export."""
    ended = python(*line.replace("DIR", str(folder)).split())
    assert ended.code == 0, ended.err
    assert ended.out == greedy_answer(llm, "山东最高的山是？", 500) + "\n"
    assert "Time per step: " in ended.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["absent", "cpu"], "absent"),
        (["DIR", "gpu"], "unknown device 'gpu'"),
        (["DIR", "nvidia", "2"], "ndev=2"),
    ],
)
def test_the_scripts_say_what_is_wrong(qwen3_folder, words, says):
    words = [str(qwen3_folder) if word == "DIR" else word for word in words]
    ended = python("-m", "qwen3_runtime.qwen3", *words)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert says in ended.err
    assert "Traceback" not in ended.err


SERVER_LINES = {
    "--dev cpu --model-path ./models/qwen3-1.5b --max-batch 4 --max-tokens 512": (
        "serve --dev cpu --model ./models/qwen3-1.5b --max-batch 4 --max-tokens 512"
    ),
    "--model-path /path/to/qwen3-model --dev cpu --ndev 1": (
        "serve --model /path/to/qwen3-model --dev cpu --ndev 1"
    ),
    "--model-path=DIR --port 9000": "serve --model=DIR --port 9000",
    "--model-paths DIR": "serve --model-paths DIR",
}


@pytest.mark.parametrize("line", SERVER_LINES)
def test_launch_server_asks_for_serve(line):
    assert serve_arguments(line.split()) == SERVER_LINES[line].split()


REPLACED_LINES = (
    "git clone",
    "python scripts/install.py --cpu=y",
    "xmake && xmake install",
    "xmake f --help",
    "xmake f -c",
    "pip install torch transformers safetensors numpy",
    "huggingface-cli download Qwen/Qwen3-1.5B-Instruct",
    "git lfs clone",
    "python test_qwen3_operators.py --output",
    "cat qwen3_test_results.json",
    "python3 /tmp/comprehensive_test.py",
    "/chat/completions",
    "INFINI_ROOT",
    "LD_LIBRARY_PATH",
    *GUIDE_VARIABLES,
)


def test_lines_that_are_written_otherwise_have_their_row():
    rows = [row for section in read_document(ROOT / "README.md").sections for row in section.rows]
    missing = [line for line in REPLACED_LINES if not any(line in row[0] for row in rows)]
    assert missing == []
