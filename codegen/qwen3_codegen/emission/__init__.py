"""Emission stage: ``EnginePlan`` in, files out; Jinja prints and never decides."""
