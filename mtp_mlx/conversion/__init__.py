"""Checkpoints in, MLX checkpoints out, quantised or not, some rows of a tensor at a time."""
