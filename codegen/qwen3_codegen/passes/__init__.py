"""Graph-to-graph rewrites, one job and one file each."""
