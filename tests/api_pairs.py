"""Golden pairs on disk and loaded through the API, once a process; and an LLM with a scripted
drafter, because random drafters accept nothing."""

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import mtp_mlx
from mtp_mlx.api import LLM
from mtp_mlx.engine.engine import Engine
from mtp_mlx.generation import read_defaults
from mtp_mlx.model.target import Target
from mtp_mlx.text.template import ChatTemplate
from mtp_mlx.text.tokenizer import Tokenizer
from mtp_mlx.worker import Worker
from tests.golden import recipe
from tests.oracle import Oracle, Script

VARIANT = "e4b"


@cache
def folders(variant: str = VARIANT) -> tuple[Path, Path]:
    """Target and drafter of a golden pair; nobody changes them (see `copy_target`)."""
    root = Path(tempfile.mkdtemp(prefix="mtp-mlx-golden-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return recipe.write_pair(root, variant)


def copy_target(folder: Path, variant: str = VARIANT) -> Path:
    """A copy of the target in `folder` that a test may damage."""
    return Path(shutil.copytree(folders(variant)[0], folder / "target"))


@cache
def loaded(variant: str = VARIANT, max_num_seqs: int = 8, backend: str = "mlx") -> LLM:
    """A golden pair, shared by all tests of a process: leave no request in it."""
    target, drafter = folders(variant)
    return mtp_mlx.load(target, draft_model=drafter, max_num_seqs=max_num_seqs, backend=backend)


def prompt_ids(length: int = 23, variant: str = VARIANT) -> list[int]:
    return [int(token) for token in recipe.golden(variant)[f"ids_{length}"]]


def runtime_of(llm: LLM):
    """What the model's thread built; look, and touch with care."""
    return llm._worker.call(lambda runtime, _: runtime)


def engine_of(llm: LLM):
    """The engine that the model's thread steps."""
    return llm._worker.call(lambda _, engine: engine)


class OracleRuntime:
    """The golden target with a drafter that knows texts[i], the plain reply of request i + 1."""

    has_drafter = True
    note = None
    device = "an oracle's"

    def __init__(self, target: Target, texts: Sequence[Sequence[int]], script: Script) -> None:
        self.engine = Engine(target, None, max_num_seqs=8)
        oracle = Oracle(dict(enumerate(texts, start=1)), script, target.config.vocab_size)
        self.engine.drafter = oracle
        oracle.watch(self.engine)

    def new_engine(self) -> Engine:
        return self.engine

    def close(self) -> None:
        pass

    def peak_memory_bytes(self) -> int:
        return 0

    def active_memory_bytes(self) -> int:
        return 0


def scripted(texts: Sequence[Sequence[int]], script: Script) -> LLM:
    """An LLM whose first requests are drafted by an oracle; shares the weights of `loaded`."""
    llm = loaded()
    target = runtime_of(llm)._target
    folder = folders()[0]
    return LLM(
        Worker(lambda: OracleRuntime(target, texts, script)),
        llm.config,
        Tokenizer.from_folder(folder),
        ChatTemplate.from_folder(folder),
        read_defaults(folder, llm.config.vocab_size),
        llm.pair,
    )
