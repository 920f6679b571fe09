"""Whether MLX can make kernels for this CPU, and whether the folder it loads them from is ours.

It makes them as they are needed, with g++, in the temporary folder, and loads whatever has their
name there: a folder that others write to would run their programs.
"""

import fcntl
import os
import stat
import subprocess
import tempfile
import threading
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from mtp_mlx.fields import shown_name
from mtp_mlx.model.backend import compiled, on_gpu

BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# In the order of the C++ library, which is not that of Python's gettempdir.
TEMPORARY = ("TMPDIR", "TMP", "TEMP", "TEMPDIR")
GXX = ("g++", "-shared", "-fPIC", "-x", "c++", "-", "-o")

_ONE_AT_A_TIME = threading.Lock()


def check_kernels() -> str | None:
    """Why kernels of `compiled` cannot be made or run here, None where they can. Where they cannot,
    the functions run as they are from then on, in all of the process, which is told the same
    whenever it asks again.

    That g++ works is tried on next to nothing, which takes 40 ms; a kernel takes it half a second,
    so that one of an earlier process serves to show that kernels may be loaded.
    """
    with _ONE_AT_A_TIME:
        return None if on_gpu() else _fault()


@cache
def _fault() -> str | None:
    try:
        folder = own_folder()
        # Not while another process writes the same kernel.
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _try_compiler(folder)
            mx.eval(_probe(mx.ones((2,))))
    except (OSError, RuntimeError) as error:
        mx.disable_compile()
        return (
            "kernels for this CPU cannot be made, and all takes longer: "
            f"{shown_name(str(error))}; they need g++, and a TMPDIR of your own whose programs may "
            "run"
        )
    return None


@compiled
def _probe(x: mx.array) -> mx.array:
    return x * x + x


def _try_compiler(folder: Path) -> None:
    """Raises OSError where there is none, RuntimeError where it fails."""
    with tempfile.TemporaryDirectory(dir=folder) as room:
        ran = subprocess.run([*GXX, f"{room}/one"], input=b"int one = 1;", capture_output=True)
    if ran.returncode:
        raise RuntimeError(f"g++ fails: {ran.stderr.decode(errors='replace')}")


def own_folder() -> Path:
    """MLX's folder of kernels, which nobody else writes to from now on. Raises OSError where it, or
    one above it, is another user's."""
    temporary = Path(next(filter(None, map(os.environ.get, TEMPORARY)), "/tmp"))
    found, us = temporary.stat(), os.geteuid()
    is_shared = found.st_mode & BY_OTHERS and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, us) or is_shared:
        raise PermissionError(f"{temporary} is another user's, or others may rename what is in it")
    folder, was_open = temporary, False
    for name in ("mlx", version("mlx"), "cpu"):
        folder /= name
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != us:
            raise PermissionError(f"{folder} is another user's, or no folder")
        if found.st_mode & BY_OTHERS:
            folder.chmod(stat.S_IMODE(found.st_mode) & ~BY_OTHERS)
            was_open = True
    if was_open:
        for made in folder.iterdir():  # by whomever: the next kernels are ours
            if not made.is_dir():
                made.unlink()
    return folder
