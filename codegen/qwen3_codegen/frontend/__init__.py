"""Graph stage: ``ModelSpec`` in, ``Graph`` out; no optimisation."""
