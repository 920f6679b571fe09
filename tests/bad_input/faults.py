"""One way to damage a pair, and what `mtp_mlx.load` must say to it.

Every refusal is one short line, typed, within two seconds, and leaves no weights behind.
"""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import pytest

import mtp_mlx
from mtp_mlx.errors import (
    CheckpointError,
    DrafterMismatch,
    ModelNotFound,
    MtpError,
    UnsupportedModel,
)
from tests.bad_input.files import Json, Tensors, copy_pair, edit_json, edit_tensors

LIMIT_S = 2.0  # of processor time, as the design promises
SLACK_BYTES = 4096  # the state of a random generator may appear; no golden fits into it
LINE_CHARS = 1200  # five names of tensors or files, with their folders
EXIT_CODES = {CheckpointError: 1, ModelNotFound: 5, UnsupportedModel: 2, DrafterMismatch: 2}
Damage = Callable[[Path, Path], object]

both_backends = pytest.mark.parametrize("backend", ["mlx", "numpy"])


@dataclass(frozen=True)
class Fault:
    """`damage` changes target and drafter folder; the refusal is a `kind` and contains `said`."""

    name: str
    damage: Damage
    said: tuple[str, ...]
    kind: type[MtpError] = CheckpointError

    def __str__(self) -> str:
        return self.name


def each(faults: list[Fault]) -> pytest.MarkDecorator:
    """One test per fault."""
    return pytest.mark.parametrize("fault", faults, ids=str)


def check(
    fault: Fault, folder: Path, variant: str = "31b", shards: int = 1, backend: str = "mlx"
) -> None:
    """Damage a pair below `folder` and assert that loading it is refused as the fault says."""
    target, drafter = copy_pair(folder, variant, shards=shards)
    fault.damage(target, drafter)
    error = refusal(target, drafter, backend)
    message = str(error)
    assert type(error) is fault.kind, message
    for part in fault.said:
        assert part in message


def refusal(target: Path, drafter: Path | None, backend: str = "mlx") -> MtpError:
    """The error with which the pair is refused; asserts what all refusals have in common."""
    held_bytes = mx.get_active_memory()
    begin = time.process_time()
    with pytest.raises(MtpError) as caught:
        mtp_mlx.load(target, draft_model=drafter, backend=backend)
    assert time.process_time() - begin < LIMIT_S
    error = caught.value
    assert error.exit_code == EXIT_CODES[type(error)]
    assert len(str(error).splitlines()) == 1
    assert str(error).isprintable()
    assert len(str(error)) < LINE_CHARS
    error.__traceback__ = error.__cause__ = error.__context__ = None
    del caught
    if mx.get_active_memory() > held_bytes:
        gc.collect()
    assert mx.get_active_memory() <= held_bytes + SLACK_BYTES
    return error


def in_target_json(name: str, change: Callable[[Json], object]) -> Damage:
    """Damage to a JSON file of the target."""
    return lambda target, drafter: edit_json(target / name, change)


def in_drafter_json(name: str, change: Callable[[Json], object]) -> Damage:
    """Damage to a JSON file of the drafter."""
    return lambda target, drafter: edit_json(drafter / name, change)


def in_target_tensors(change: Callable[[Tensors], object]) -> Damage:
    """Damage to the target's tensors, whose file stays well formed."""
    return lambda target, drafter: edit_tensors(target, change)


def in_drafter_tensors(change: Callable[[Tensors], object]) -> Damage:
    """Damage to the drafter's tensors, whose file stays well formed."""
    return lambda target, drafter: edit_tensors(drafter, change)


def with_value(key: str, value: object) -> Callable[[Json], object]:
    """Sets `key`, in text_config if that has it."""

    def change(top: Json) -> None:
        text = top.get("text_config", top)
        (text if key in text else top)[key] = value

    return change
