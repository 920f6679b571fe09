"""Measuring a loaded pair, and another server beside it: what `mtp-mlx bench` prints."""
