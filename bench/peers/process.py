"""The parent's side of an engine's process (see child.py)."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.peers import environment, lm_layout
from bench.peers.job import Done, Job
from bench.peers.vlm_layout import drop_vision_config
from mtp_mlx.embedded import embedded_folder
from mtp_mlx.pair_names import DRAFTER_SUFFIX

OWN, LM, VLM = "mtp-mlx", "mlx-lm", "mlx-vlm"
MODULES = {OWN: "bench.peers.own", LM: "bench.peers.lm", VLM: "bench.peers.vlm_engine"}


class Failed(RuntimeError):
    """A process has ended before it was asked to, or cannot do what it was asked for."""


def write_pairs(pair: str, folder: Path) -> dict[str, tuple[Path, Path]]:
    """Target and drafter as each engine loads them, below `folder`."""
    names = pair, f"{pair}{DRAFTER_SUFFIX}"
    own = embedded_folder(names[0]), embedded_folder(names[1])
    written = folder / names[0], folder / names[1]
    for source, place in zip(own, written, strict=True):
        place.mkdir()
        lm_layout.write(source, place)
    drop_vision_config(written[0])  # mlx-lm does not mind
    return {OWN: own, LM: written, VLM: written}


@dataclass(frozen=True)
class Process:
    """An engine that has loaded its pair. `about`: what it says of itself."""

    name: str
    about: dict[str, Any]
    _popen: subprocess.Popen[str]

    def run(self, job: Job) -> Done:
        """One job, to its end. Raises Failed where there is none."""
        answer = _ask(self._popen, asdict(job), self.name)
        self.about["max_rss_bytes"] = answer.pop("max_rss_bytes")
        return Done(**answer)


def _ask(popen: subprocess.Popen[str], value: dict[str, Any], name: str) -> dict[str, Any]:
    assert popen.stdin is not None and popen.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # then it has ended, which is said below
        popen.stdin.write(json.dumps(value) + "\n")
        popen.stdin.flush()
    line = popen.stdout.readline()
    if not line:
        raise Failed(f"{name} has ended with exit code {popen.wait()}; see its lines above")
    answer = json.loads(line)
    if "error" in answer:
        raise Failed(f"{name}: {answer['error']}")
    return answer


@contextlib.contextmanager
def running(
    name: str, folders: tuple[Path, Path], cache: Path, blas: Path | None
) -> Iterator[Process]:
    """The engine's process, which ends with the block. `cache`: where ours keeps its calibration.
    `blas`: a library preloaded in place of the one that MLX comes with."""
    python = Path(sys.executable) if name == OWN else environment.python()
    assert python is not None, "a peer runs only where it is installed"
    variables = {**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    if blas is not None:
        variables["LD_PRELOAD"] = str(blas)
    popen = subprocess.Popen(
        [str(python), "-m", MODULES[name]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=environment.ROOT,
        env=variables,
    )
    try:
        target, drafter = folders
        asked = {"target": str(target), "drafter": str(drafter), "blas": blas and str(blas)}
        yield Process(name, _ask(popen, asked, name), popen)
    finally:
        assert popen.stdin is not None and popen.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            popen.stdin.close()
        popen.wait()
        popen.stdout.close()


def installed() -> Sequence[str]:
    """The engines that can run here, ours first."""
    return (OWN,) if environment.python() is None else (OWN, LM, VLM)
