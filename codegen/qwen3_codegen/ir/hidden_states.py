"""Which values of a graph Hugging Face calls hidden states."""

from __future__ import annotations

from qwen3_codegen.ir.graph import Graph

_NORMS = frozenset({"rms_norm", "layer_norm"})


def hidden_state_names(graph: Graph) -> tuple[str, ...]:
    """Returns what transformers gives for ``output_hidden_states=True``, by the names of a trace.

    That is what every layer is given, the first one embeddings with their scale, and in place of
    what the last one leaves, that after the final norm: the last norm of the epilogue. Without a
    norm there it is as the layer left it. Source: ``capture_outputs`` in
    ``transformers/utils/output_capturing.py`` with ``tie_last_hidden_states``.

    Returns:
        ``num_layers + 1`` names.
    """
    names = [
        f"layers.{layer}.{graph.layer_kinds[kind].parameters[0].name}"
        for layer, kind in enumerate(graph.schedule)
    ]
    gather, *others = graph.epilogue.nodes
    norms = [node for node in others if node.op in _NORMS]
    last = norms[-1] if norms else gather
    return (*names, f"epilogue.{last.output.name}")
