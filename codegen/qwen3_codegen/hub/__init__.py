"""Models of the Hugging Face hub by id: found in its cache, or downloaded into it."""

from qwen3_codegen.hub.location import LocatedCheckpoint, locate_checkpoint

__all__ = ["LocatedCheckpoint", "locate_checkpoint"]
