"""References agree with right engines on every architecture, and see what they can see."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qwen3_codegen.errors import CodegenError
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.verification import Stage, engine_limits, verify_engine
from qwen3_codegen.verification.interpreter_reference import InterpreterReference
from qwen3_codegen.verification.script import play
from qwen3_codegen.verification.tensor_dump import DumpReference, write_dump
from qwen3_codegen.verification.torch_reference import TorchReference, user_class, user_reference
from qwen3_runtime.checkpoint import open_checkpoint
from tests.reference.cases import CASES
from tests.tiers import REPRESENTATIVES, exhaustive_beyond
from tests.verification.subjects import (
    interpreted,
    request_for,
    torch_reference,
    verified,
    with_window,
)

LEFT_OUT = {
    "phi3-longrope-long": "transformers takes short factors for its short sequences",
}
COMPARED = [case for case in CASES if case.id not in LEFT_OUT]

SEEN = {
    "qwen3-window-8": {
        "portable": {"x", "qkv", "q_rms_norm", "k_rms_norm", "a", "gate_up", "mul"},
        "native": {"x", "q_proj_linear", "k_proj_linear", "v_proj_linear", "a", "mul"},
    },
    "phi3": {"portable": {"qkv", "gate_up", "a", "mul"}},
    "gemma3": {"portable": {"q_rms_norm", "k_rms_norm", "a"}},
    "qwen3-moe": {"portable": {"x_rms_norm", "m"}, "native": {"x_rms_norm", "m"}},
}
"""Values that must be compared in layer 1, at least."""


@pytest.mark.parametrize("lowering", ["portable", "native"])
@pytest.mark.parametrize("case", exhaustive_beyond(REPRESENTATIVES | SEEN.keys(), COMPARED))
def test_no_false_alarm(case, lowering, reference):
    model = reference(case)
    with open_checkpoint(model.path) as checkpoint:
        subject = interpreted(load_model(str(model.path)), checkpoint, lowering)
        report = verified(subject, checkpoint, [torch_reference(model, subject.graph)])
    assert report.verdict().startswith("PASS"), report.verdict()
    values = {check.name for check in report.checks if check.stage is Stage.LAYERS}
    wanted = SEEN.get(case.id, {}).get(lowering, set())
    assert {f"layers.1.{name}" for name in wanted} <= values
    assert len(values) >= 7 * len(subject.graph.schedule)


def test_stacked_experts_show_a_wrong_mixture(reference):
    model = reference("qwen3-moe")
    with open_checkpoint(model.path) as checkpoint:
        subject = interpreted(
            load_model(str(model.path), overrides={"norm_topk_prob": "false"}), checkpoint, "native"
        )
        report = verified(subject, checkpoint, [torch_reference(model, subject.graph)])
    first = report.first_wrong
    assert first is not None
    assert (first.stage, first.name, first.op) == (Stage.LAYERS, "layers.0.m", "moe")
    assert first.note == "output of model.layers.0.mlp.experts"


class ListedExperts(torch.nn.ModuleList):
    """Experts as a checkpoint names them, each called with the tokens that chose it."""

    def __init__(self, stacked):
        super().__init__()
        for gate_up, down in zip(stacked.gate_up_proj, stacked.down_proj, strict=True):
            expert = torch.nn.Module()
            parts = zip(("gate_proj", "up_proj"), gate_up.chunk(2), strict=True)
            for name, rows in [*parts, ("down_proj", down)]:
                linear = torch.nn.Linear(*rows.T.shape, bias=False)
                linear.weight = torch.nn.Parameter(rows.clone())
                expert.add_module(name, linear)
            self.append(expert)

    def forward(self, x, chosen, weights):
        result = torch.zeros_like(x)
        for number, expert in enumerate(self):
            rows, ranks = torch.where(chosen == number)
            if len(rows):
                middle = torch.nn.functional.silu(expert.gate_proj(x[rows])) * expert.up_proj(
                    x[rows]
                )
                result[rows] += expert.down_proj(middle) * weights[rows, ranks, None]
        return result


def test_experts_that_run_for_their_tokens_alone(reference):
    model = reference("qwen3-moe")
    other = copy.deepcopy(model.model)
    for layer in other.model.layers:
        layer.mlp.experts = ListedExperts(layer.mlp.experts)
    with open_checkpoint(model.path) as checkpoint:
        subject = interpreted(load_model(str(model.path)), checkpoint, "native")
        user = TorchReference("mine", lambda dtype: other, subject.graph, "model.layers.{layer}.")
        report = verified(subject, checkpoint, [user])
    assert report.verdict().startswith("PASS"), report.verdict()


@pytest.mark.parametrize("id", ["qwen3-window-8", "jiuge-fm9g-tied", "gemma3-softcap"])
def test_the_interpreter_as_reference(id, reference):
    model = reference(id)
    with open_checkpoint(model.path) as checkpoint:
        subject = interpreted(load_model(str(model.path)), checkpoint, "native")
        graphs = (subject.frontend_graph, subject.graph)
        report = verified(
            subject, checkpoint, [InterpreterReference(*graphs, checkpoint.read, 128)]
        )
    assert report.verdict().startswith("PASS"), report.verdict()
    layers = [check.name for check in report.checks if check.stage is Stage.LAYERS]
    assert len(layers) == len(subject.graph.schedule) + 1


USER = '''
"""A Qwen3 as a researcher would write it down."""

import torch
from torch import nn


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    def __init__(self, c, window):
        super().__init__()
        self.h, self.kv, self.d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        self.window, self.theta = window, c["rope_theta"]
        self.q_proj = nn.Linear(c["hidden_size"], self.h * self.d, bias=False)
        self.k_proj = nn.Linear(c["hidden_size"], self.kv * self.d, bias=False)
        self.v_proj = nn.Linear(c["hidden_size"], self.kv * self.d, bias=False)
        self.o_proj = nn.Linear(self.h * self.d, c["hidden_size"], bias=False)
        self.q_norm = Norm(self.d, c["rms_norm_eps"])
        self.k_norm = Norm(self.d, c["rms_norm_eps"])

    def rotate(self, x):
        at = torch.arange(x.shape[1], dtype=torch.float32)[:, None]
        angle = at / self.theta ** (torch.arange(0, self.d, 2) / self.d)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, x):
        n = x.shape[1]
        q = self.rotate(self.q_norm(self.q_proj(x).view(1, n, self.h, self.d)))
        k = self.rotate(self.k_norm(self.k_proj(x).view(1, n, self.kv, self.d)))
        v = self.v_proj(x).view(1, n, self.kv, self.d)
        k, v = (t.repeat_interleave(self.h // self.kv, 2) for t in (k, v))
        scores = torch.einsum("bmhd,bnhd->bhmn", q, k) / self.d**0.5
        seen = torch.ones(n, n).tril()
        if self.window:
            seen = seen - torch.ones(n, n).tril(-self.window)
        scores = scores.masked_fill(seen == 0, float("-inf"))
        return self.o_proj(torch.einsum("bhmn,bnhd->bmhd", scores.softmax(-1), v).reshape(1, n, -1))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.up_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.down_proj = nn.Linear(c["intermediate_size"], c["hidden_size"], bias=False)

    def forward(self, x):
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c, kind):
        super().__init__()
        self.self_attn = Attention(c, c["sliding_window"] if kind == "sliding_attention" else None)
        self.mlp = Mlp(c)
        self.input_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.post_attention_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])

    def forward(self, h):
        h = h + self.self_attn(self.input_layernorm(h))
        return h + self.mlp(self.post_attention_layernorm(h))


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c, kind) for kind in c["layer_types"])
        self.norm = Norm(c["hidden_size"], c["rms_norm_eps"])

    def forward(self, token_ids):
        h = self.embed_tokens(token_ids)
        for layer in self.layers:
            h = layer(h)
        return self.norm(h)


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.model = Body(c)
        self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)

    def forward(self, token_ids):
        return self.lm_head(self.model(token_ids))
'''


def verified_with(
    text: str, tmp_path: Path, reference, name: str = "Model", lowering: str = "portable"
):
    file = tmp_path / "mine.py"
    file.write_text(text, encoding="utf-8")
    model = reference("qwen3-window-8")
    with open_checkpoint(model.path) as checkpoint:
        subject = interpreted(load_model(str(model.path)), checkpoint, lowering)
        found = user_class(f"{file}:{name}")
        mine = user_reference(found, checkpoint, subject.graph, "model.layers.{layer}.")
        return verified(subject, checkpoint, [mine])


def test_a_module_of_the_users(reference, tmp_path):
    report = verified_with(USER, tmp_path, reference)
    assert report.verdict().startswith("PASS"), report.verdict()
    assert f"{tmp_path / 'mine.py'}:Model, float32" in report.references


@pytest.mark.parametrize(
    ("old", "new", "name", "op"),
    [
        ("silu(self.gate_proj(x)) * self.up", "gelu(self.gate_proj(x)) * self.up", "mul", "swiglu"),
        ("tril(-self.window)", "tril(-self.window - 1)", "a", "attention"),
        ("self.k_norm(self.k_proj(x).view(", "(self.k_proj(x).view(", "k_rms_norm", "rms_norm"),
        ("return h + self.mlp", "return h * 1.001 + self.mlp", "h_add_2", "linear"),
    ],
)
def test_a_module_that_differs(old, new, name, op, reference, tmp_path):
    assert USER.count(old) == 1
    report = verified_with(USER.replace(old, new), tmp_path, reference)
    first = report.first_wrong
    assert (first.name, first.op, first.layer) == (f"layers.0.{name}", op, 0)
    assert first.stage is Stage.LAYERS
    # What was compared, and is wrong, was seen.
    checks = [c for c in report.checks if c.stage is Stage.LAYERS and np.isfinite(c.measured)]
    noted = [check.note.partition("not seen before it: ")[2] for check in report.failures]
    unseen = {each.split(" = ")[0] for note in noted for each in note.split(", ")} - {""}
    assert not unseen & {check.name for check in checks}


@pytest.mark.parametrize(
    ("old", "new", "name", "part", "note"),
    [
        (
            "self.window, self.theta = window, c",
            "self.window, self.theta = window, 1.1 * c",
            "a",
            None,
            "not seen before it: layers.0.a.q_rope = q_rope of rotary_attention, layers.0.a.k_rope",
        ),
        (
            "self.k_norm(self.k_proj(x).view(",
            "1.01 * self.k_norm(self.k_proj(x).view(",
            "a",
            None,
            "layers.0.a.k_rope = k_rope of rotary_attention",
        ),
        (
            "self.k_norm = Norm(self.d, c[",
            "self.k_norm = Norm(self.d, 2 * c[",
            "a.k_norm",
            "k_norm",
            "output of model.layers.0.self_attn.k_norm",
        ),
        (
            "self.k_norm(self.k_proj(x).view(",
            "(self.k_proj(x).view(",
            "a.k_norm",
            "k_norm",
            "which the reference does not apply",
        ),
    ],
)
def test_a_module_that_differs_inside_a_fused_attention(
    old, new, name, part, note, reference, tmp_path
):
    """What no module shows, the rotation, is named beside the attention."""
    assert USER.count(old) == 1
    text = USER.replace(old, new)
    first = verified_with(text, tmp_path, reference, lowering="native").first_wrong
    assert (first.name, first.part, first.layer) == (f"layers.0.{name}", part, 0)
    assert first.op == "rotary_attention"
    assert note in first.note


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "Model", "there is no class 'Model'"),
        ("Model = 3", "Model", "there is no class 'Model'"),
        ("1 / 0", "Model", "ZeroDivisionError"),
        ("raise SystemExit(0)", "Model", "SystemExit: 0"),
        (USER.replace("self.lm_head = nn", "self.head = nn"), "Model", "head.weight"),
        (USER.replace('c["head_dim"]', 'c["no_such_field"]'), "Model", "no_such_field"),
        (USER.replace("self.norm(h)", "self.norm(x)"), "Model", "NameError"),
        (USER.replace("self.model(token_ids)", "self.model(token_ids)[0]"), "Model", "no logits"),
        (USER.replace("return self.lm_head", "return 1, self.lm_head"), "Model", "tuple"),
    ],
)
def test_a_module_that_cannot_be_used(text, name, message, reference, tmp_path):
    with pytest.raises(CodegenError) as caught:
        verified_with(text, tmp_path, reference, name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("transfomers", "did you mean 'transformers'?"),
        ("interpretor", "did you mean 'interpreter'?"),
        ("mine.py", "name a class in the file, too: mine.py:Model"),
        ("mnie.py:Model", "did you mean 'mine.py'?"),
        ("mine.py:Modle", "did you mean 'Model'?"),
    ],
)
def test_a_near_miss_is_suggested(written, hint, tmp_path, monkeypatch, capsys):
    """And a file is said to run only where it does."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("class Model: pass", encoding="utf-8")
    with pytest.raises(CodegenError) as caught:
        user_class(written)
    assert str(caught.value).endswith(f"hint:     {hint}")
    said = "note: mine.py runs as a program of yours\n" if written == "mine.py:Modle" else ""
    assert capsys.readouterr().err == said


def test_tensors_of_another_engine(reference, tmp_path):
    """One writes its values, the other is compared with them."""
    model = reference("qwen3-window-8")
    with open_checkpoint(model.path) as checkpoint:
        spec = load_model(str(model.path))
        subject = interpreted(spec, checkpoint, "portable")
        request = request_for(subject.graph)
        verify_engine(
            subject,
            replace(request, dump_tensors=tmp_path / "there"),
            checkpoint.read,
            lambda played: [],
        )

        def against(engine) -> object:
            return verify_engine(
                engine,
                request,
                checkpoint.read,
                lambda played: [DumpReference(tmp_path / "there", played, engine.graph)],
            )

        report = against(subject)
        assert report.verdict().startswith("PASS")
        (count, total) = re.match(r"(\d+) of (\d+) values", report.notes[-1]).groups()
        assert count == total
        assert len([c for c in report.checks if c.stage is Stage.LAYERS]) > 30
        # Of another lowering: the values both have.
        report = against(interpreted(spec, checkpoint, "native"))
        assert report.verdict().startswith("PASS")
        (count, total) = re.match(r"(\d+) of (\d+) values", report.notes[-1]).groups()
        assert 10 < int(count) < int(total)
        wrong = interpreted(spec, checkpoint, "portable", with_window(subject.graph, 9))
        wrong = replace(wrong, graph=with_window(subject.graph, 9))
        first = against(wrong).first_wrong
    assert (first.stage, first.name, first.op) == (Stage.LAYERS, "layers.0.a", "attention")


def test_a_folder_that_says_nothing_of_a_layer_is_refused(reference, tmp_path):
    """To pass with the one value there is would look like the pass of a whole model."""
    model = reference("qwen3-window-8")
    with open_checkpoint(model.path) as checkpoint:
        subject = interpreted(load_model(str(model.path)), checkpoint, "portable")
        request = request_for(subject.graph)
        engine = subject.traced(engine_limits(request))
        played = play(engine, request.script, engine.trace)

    def kept(*names: str) -> DumpReference:
        some = [{name: trace[name] for name in names} for trace in played.results]
        there = tmp_path / str(len(names))
        write_dump(there, replace(played, results=tuple(some)), subject.graph, subject.facts)
        return DumpReference(there, played, subject.graph)

    sequences = request.script.token_ids
    with pytest.raises(CodegenError, match="no value of some layers") as caught:
        kept("layers.1.x").observe(sequences)
    assert re.match(r"1 of \d+ values .*; none of prologue, layers.0, layers.2, ", caught.value.got)
    every = ["layers.0.a", "layers.1.x", "layers.2.x", "epilogue.logits"]
    (note,) = kept(*every).observe(sequences).notes
    assert re.match(r"4 of \d+ values of the engine are in .*; none of prologue\Z", note)


def test_tensors_of_other_tokens_are_refused(reference, tmp_path):
    model = reference("qwen3-window-8")
    with open_checkpoint(model.path) as checkpoint:
        subject = interpreted(load_model(str(model.path)), checkpoint, "portable")
        played = []
        for seed in (0, 1):
            request = request_for(subject.graph, seed)
            engine = subject.traced(engine_limits(request))
            played.append(play(engine, request.script, engine.trace))
    there = tmp_path / "there"
    write_dump(there, played[0], subject.graph, subject.facts)
    with pytest.raises(CodegenError, match="other token_ids"):
        DumpReference(there, played[1], subject.graph)
    (there / "index.json").write_text('{"format": 1, "steps": [{"file": "../x"}]}')
    with pytest.raises(CodegenError, match="other steps"):
        DumpReference(there, played[0], subject.graph)
    with pytest.raises(CodegenError, match="holds something else"):
        write_dump(tmp_path, played[0], subject.graph, subject.facts)
    assert np.array_equal(played[0].batches[0].positions, played[1].batches[0].positions)
