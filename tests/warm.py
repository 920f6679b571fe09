"""Has MLX make its CPU kernels, once on a machine, before several processes ask for the same at
the same time: a kernel whose file another process is still writing cannot be loaded.

    python -m tests.warm
"""

import tempfile
from importlib.metadata import version
from pathlib import Path


def marker() -> Path:
    """A file beside the kernels, there once they have been made."""
    return Path(tempfile.gettempdir()) / "mlx" / version("mlx") / "cpu" / "made-for-mtp-mlx"


def make() -> None:
    """Run both built-in pairs: prompts of several laps, one row and two, drafts and none."""
    import mtp_mlx

    for name in ("tiny", "tiny-moe"):
        with mtp_mlx.load(name, max_num_seqs=2) as llm:
            for drafts in (0, 3):
                for prompts in ([[5] * 70], [[5] * 70, [7] * 5]):
                    options = {"max_tokens": 6, "num_draft_tokens": drafts}
                    llm.batch(prompts, temperature=0.0, **options)
                    llm.batch(prompts, temperature=0.7, seed=1, **options)
    marker().parent.mkdir(parents=True, exist_ok=True)  # without a compiler there are none
    marker().touch()


if __name__ == "__main__":
    make()
