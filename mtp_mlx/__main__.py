"""`python -m mtp_mlx` is `mtp-mlx`."""

from mtp_mlx.cli.main import main

if __name__ == "__main__":
    main()
