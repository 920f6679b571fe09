"""Has MLX make its CPU kernels, once on a machine, before several processes ask for the same at
the same time: a kernel whose file another process is still writing cannot be loaded.

    python -m tests.warm
"""

import fcntl
import hashlib
from pathlib import Path

import mtp_mlx
from mtp_mlx.model.backend import on_gpu
from mtp_mlx.model.kernels import check_kernels, own_folder

MODEL = Path(mtp_mlx.__file__).parent / "model"


def warm() -> None:
    """Make the kernels of this source, unless they are there, cannot be made or are not needed."""
    if on_gpu() or check_kernels() is not None:
        return
    source = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(MODEL.glob("*.py"))))
    marker = own_folder() / f"made-for-mtp-mlx-{source.hexdigest()[:16]}"
    with marker.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists():
            make()
            marker.touch()


def make() -> None:
    """Run both built-in pairs: prompts of several laps, one row and two, drafts and none."""
    for name in ("tiny", "tiny-moe"):
        with mtp_mlx.load(name, max_num_seqs=2) as llm:
            for drafts in (0, 3):
                for prompts in ([[5] * 70], [[5] * 70, [7] * 5]):
                    options = {"max_tokens": 6, "num_draft_tokens": drafts}
                    llm.batch(prompts, temperature=0.0, **options)
                    llm.batch(prompts, temperature=0.7, seed=1, **options)


if __name__ == "__main__":
    warm()
