"""Target, drafter and cache on MLX. `mtp_mlx.reference` is the slow twin, file for file."""
