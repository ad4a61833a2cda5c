"""Build stage: files in, extension module out."""
