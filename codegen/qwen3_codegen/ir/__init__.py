"""The graph, its op table, verifier, printer and NumPy interpreter."""
