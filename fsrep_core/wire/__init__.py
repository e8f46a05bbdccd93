"""Bytes to frames to one dialogue, and back, without input or output."""
