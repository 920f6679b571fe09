"""A6: weights of other formats, which are never opened."""

import os
import pickle
from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx.errors import ModelNotFound, UnsupportedModel
from tests.bad_input.faults import both_backends, refusal
from tests.bad_input.files import WEIGHTS, copy_pair

NAMES = ["pytorch_model.bin", "model.gguf", "weights.npz", "model.pt", "model.h5", "model.msgpack"]


class Canary:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@both_backends
@pytest.mark.parametrize("role", ["target", "drafter"])
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_format_are_refused_by_name(name, role, backend, tmp_path):
    pair = dict(zip(("target", "drafter"), copy_pair(tmp_path, "31b"), strict=True))
    (pair[role] / WEIGHTS).unlink()
    canary = tmp_path / "canary"
    (pair[role] / name).write_bytes(pickle.dumps(Canary(canary)))
    error = refusal(pair["target"], pair["drafter"], backend)
    assert type(error) is UnsupportedModel
    assert f"unsupported format: {name}; expected {WEIGHTS}" in str(error)
    assert not canary.exists()


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_format_are_not_opened_at_all(name, tmp_path):
    """To open a pipe that nobody writes to would block for ever."""
    target, drafter = copy_pair(tmp_path, "31b")
    (target / WEIGHTS).unlink()
    os.mkfifo(target / name)
    assert name in str(refusal(target, drafter))


def test_a_pipe_in_the_place_of_the_weights_is_not_opened(tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    (target / WEIGHTS).unlink()
    os.mkfifo(target / WEIGHTS)
    assert WEIGHTS in str(refusal(target, drafter))


def test_a_folder_without_weights_is_no_model(tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    (target / WEIGHTS).unlink()
    error = refusal(target, drafter)
    assert type(error) is ModelNotFound
    assert WEIGHTS in str(error)


def test_a_pickle_beside_the_weights_is_left_alone(tmp_path):
    target, _ = copy_pair(tmp_path, "31b")
    canary = tmp_path / "canary"
    (target / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary)))
    os.mkfifo(target / "training_args.bin")
    assert not mtp_mlx.load(target, draft_model=None).has_drafter
    assert not canary.exists()
