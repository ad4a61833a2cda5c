"""``manifest.json``: what an engine is, which operators it uses and why, what it needs in memory.

The runtime reads the weights and cache groups from it; a person reads the rest.
"""

from __future__ import annotations

import dataclasses
import json

from qwen3_codegen.plan.digest import content_digest
from qwen3_codegen.plan.records import EnginePlan, RegionPlan, WeightPlan
from qwen3_codegen.spec.model import RopeTable
from qwen3_runtime.checkpoint.transform import to_json
from qwen3_runtime.engine.manifest import MANIFEST_FORMAT, TRACED_KEY


def manifest_text(plan: EnginePlan) -> str:
    """Returns the manifest as JSON; equal plans give equal bytes."""
    calls = "infinicore" if plan.target.lowering == "portable" else "kernels"
    manifest = {
        "format": MANIFEST_FORMAT,
        "module": plan.module_name,
        "model": plan.model_name,
        "architecture": plan.architecture,
        "device": {
            "name": plan.target.device,
            "description": plan.target.name,
            "lowering": plan.target.lowering,
            "emulated": plan.target.emulated,
        },
        "infinicore": {"release": plan.target.release, "kind": plan.target.infinicore},
        "dtype": plan.dtype.value,
        "vocab_size": plan.vocab_size,
        "max_position_embeddings": plan.max_position_embeddings,
        "num_layers": plan.num_layers,
        "config": dict(plan.spec_facts),
        "rope": {name: _rope(table) for name, table in plan.rope_tables.items()},
        "overrides": dict(plan.overrides),
        "cache_groups": [
            {
                "name": group.name,
                "kind": group.kind,
                "layers": list(group.layers),
                "num_key_value_heads": group.num_key_value_heads,
                "head_dim": group.head_dim,
                "window": group.window,
                "dtype": group.dtype,
                "block_size": group.block_size,
            }
            for group in plan.cache_groups
        ],
        "ops": {
            choice.op: {calls: list(choice.operators), "why": choice.reason}
            for choice in plan.choices
        },
        "memory": {
            "weight_bytes": plan.memory.weight_bytes,
            "kv_bytes_per_token": plan.memory.kv_bytes_per_token,
            "activation_bytes_per_token": plan.memory.activation_bytes_per_token,
            "logit_bytes_per_row": plan.memory.logit_bytes_per_row,
            "max_logit_rows": plan.max_logit_rows,
            "rope_bytes_per_position": plan.memory.rope_bytes_per_position,
            "mask_bytes_per_token_and_position": plan.memory.mask_bytes_per_token_and_position,
            "attention_scratch_bytes": plan.memory.attention_scratch_bytes,
        },
        "weights": [
            *(_weight(weight, None) for weight in plan.prologue.weights),
            *(
                _weight(part, kind)
                for kind in plan.layer_kinds
                for weight in kind.weights
                for part in weight.parts()
            ),
        ],
        "ignored_tensors": list(plan.ignored_tensors),
        "sha256": {**plan.digests, "plan": content_digest(plan)},
    }
    if plan.activation_dtype is not None:
        manifest["activation_dtype"] = plan.activation_dtype.value
    if plan.row_dtype is not None:
        manifest["row_dtype"] = plan.row_dtype.value
    if plan.is_traced:
        manifest[TRACED_KEY] = _traced(plan)
    return json.dumps(manifest, indent=2, ensure_ascii=True) + "\n"


def _traced(plan: EnginePlan) -> dict[str, object]:
    """What the runtime must undo to show values as the graph means them."""
    return {
        "interleaved": [
            {"value": call.name, "layers": list(kind.layers), **dataclasses.asdict(heads)}
            for kind in plan.layer_kinds
            for call in kind.trace_calls
            for heads in call.interleaved
        ]
    }


def _rope(table: RopeTable) -> dict[str, object]:
    return {
        **dict(table.parameters),
        "rotary_dim": table.rotary_dim,
        "interleaved": table.interleaved,
        "attention_factor": table.attention_factor,
    }


def _weight(weight: WeightPlan, kind: RegionPlan | None) -> dict[str, object]:
    return {
        "name": weight.name,
        "layers": None if kind is None else list(kind.layers),
        "shape": list(weight.shape),
        "dtype": weight.dtype.value,
        "expression": to_json(weight.expression),
        "sources": {name: list(shape) for name, shape in weight.sources.items()},
    }
