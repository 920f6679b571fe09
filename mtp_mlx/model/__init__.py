"""The MLX form of target, drafter and cache. `mtp_mlx.reference` is its slow twin, file for file."""
