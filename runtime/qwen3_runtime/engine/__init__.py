"""Engines: what one step takes and gives, and the engines that carry it out."""
