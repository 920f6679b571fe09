"""Folders that appear complete or not at all: written beside their place, renamed at the end."""

import os
import shutil
from pathlib import Path
from types import TracebackType

from mtp_mlx.errors import MtpError, RequestError

SPARE_BYTES = 64 << 20  # config, tokenizer and what else the folder holds


class Output:
    """The folders of one run. A context manager, at whose end those that are not in their place
    are removed."""

    def __init__(self) -> None:
        self._partials: dict[Path, Path] = {}

    def __enter__(self) -> "Output":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def begin(self, folder: Path) -> Path:
        """Make the folder that will become `folder`, or what that links to.

        Raises RequestError where that has something in it, or another run writes there.
        """
        place = _place(folder)
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            raise RequestError(
                f"{folder}: exists and is not empty; remove it or give another --mlx-path",
                param="mlx_path",
            )
        partial = place.with_name(f".{place.name}.partial")
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.mkdir()
        except FileExistsError:
            raise RequestError(
                f"{partial}: another conversion writes there, or one was killed; "
                "if none runs, remove it",
                param="mlx_path",
            ) from None
        self._partials[folder] = partial
        return partial

    def partial(self, folder: Path) -> Path:
        """Where to write what will be in `folder`."""
        return self._partials[folder]

    def check_room(self, parent: Path, num_bytes: int) -> None:
        """Raise MtpError where the disk has less room than is needed."""
        free = shutil.disk_usage(parent).free
        if num_bytes + SPARE_BYTES > free:
            raise MtpError(
                f"{parent}: {(num_bytes + SPARE_BYTES) / 1e9:.2f} GB are needed, "
                f"{free / 1e9:.2f} GB are free; make room or give another --mlx-path"
            )

    def commit(self) -> None:
        """Put every folder in its place."""
        for folder, partial in list(self._partials.items()):
            partial.rename(_place(folder))
            del self._partials[folder]

    def discard(self) -> None:
        """Remove what was written so far."""
        while self._partials:
            shutil.rmtree(self._partials.popitem()[1], ignore_errors=True)


def _place(folder: Path) -> Path:
    """Where a folder lies, or will lie: no folder can take the place of a link."""
    return Path(os.path.realpath(folder))
