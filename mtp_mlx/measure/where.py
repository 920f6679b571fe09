"""What figures belong to: the machine, its software, and the program's own commit."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import mtp_mlx
from mtp_mlx import __version__
from mtp_mlx.doctor import mac
from mtp_mlx.doctor.system import preloaded_blas
from mtp_mlx.machine import machine_memory

PACKAGE = Path(mtp_mlx.__file__).resolve().parent
COMMIT = ("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


@dataclass(frozen=True)
class Where:
    """`commit`: of the checkout that the program runs from, with -dirty where its files differ;
    None where it was installed. `blas`: the library that was put in MLX's place, if one was."""

    chip: str
    system: str
    memory_bytes: int
    python: str
    mlx: str
    mtp_mlx: str
    commit: str | None
    blas: str | None

    def __str__(self) -> str:
        program = f"mtp-mlx {self.mtp_mlx}" + (f" ({self.commit})" if self.commit else "")
        parts = [self.chip, self.system, f"MLX {self.mlx}", program, f"Python {self.python}"]
        return ", ".join([*parts, f"with {self.blas}"] if self.blas else parts)


def where() -> Where:
    """This machine and process."""
    from mtp_mlx.model.backend import device_name

    return Where(
        chip=device_name(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        memory_bytes=machine_memory(),
        python=platform.python_version(),
        mlx=version("mlx"),
        mtp_mlx=__version__,
        commit=commit(PACKAGE),
        blas=", ".join(preloaded_blas()) or None,
    )


def commit(package: Path) -> str | None:
    """The commit of the git checkout whose folder the package lies in; None where it does not: a
    repository further up, in which it was installed, is another program's."""
    top = mac.output_of("git", "-C", str(package), "rev-parse", "--show-toplevel")
    if top is None or Path(top.rstrip("\n")).resolve() != package.parent:
        return None
    found = mac.output_of("git", "-C", str(package), *COMMIT)
    return None if found is None else found.strip() or None
