"""The model in plain NumPy float32, file for file the slow twin of `mtp_mlx.model`.

Nothing here is clever: no kernels, no ring buffers, no padding, loops over rows. Every row of a
product is computed by itself, so a token's numbers do not depend on what else is in the forward:
chunked and whole prefill, verify and plain decoding agree to the last bit. Read `decode` first.
"""
