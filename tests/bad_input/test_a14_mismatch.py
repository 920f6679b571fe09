"""A14: a drafter of another target is refused with both values, never left out silently."""

import pytest

from mtp_mlx.errors import CheckpointError, DrafterMismatch
from tests.bad_input.faults import (
    Damage,
    Fault,
    both_backends,
    check,
    each,
    in_drafter_json,
    refusal,
    with_value,
)
from tests.bad_input.files import Json, copy_pair, edit_json

CONFIG = "drafter/config.json"
SLIDING, FULL = "sliding_attention", "full_attention"


def value(key: str, new: object) -> Damage:
    return in_drafter_json("config.json", with_value(key, new))


def rope(kind: str, key: str, new: object) -> Damage:
    def change(top: Json) -> None:
        top["text_config"]["rope_parameters"][kind][key] = new

    return in_drafter_json("config.json", change)


FAULTS = [
    Fault(name, damage, (CONFIG, f"was made for {what} {ours}, the target has {theirs};"),
          DrafterMismatch)
    for name, damage, what, ours, theirs in [
        ("hidden", value("backbone_hidden_size", 96), "backbone_hidden_size", 96, 64),
        ("vocabulary", value("vocab_size", 512), "vocab_size", 512, 256),
        ("head_dim", value("head_dim", 32), "layer 0 (sliding) head_dim", 32, 16),
        ("global", value("global_head_dim", 64), "layer 3 (full) head_dim", 64, 32),
        ("heads", value("num_key_value_heads", 1), "layer 0 (sliding) K/V heads", 1, 2),
        ("global_heads", value("num_global_key_value_heads", 2), "layer 3 (full) K/V heads", 2, 1),
        ("window", value("sliding_window", 16), "layer 0 (sliding) sliding_window", 16, 8),
        ("theta", rope(SLIDING, "rope_theta", 5e3), "layer 0 (sliding) rope_theta", 5e3, 1e4),
        ("full_theta", rope(FULL, "rope_theta", 1e5), "layer 3 (full) rope_theta", 1e5, 1e6),
        ("pairs", rope(FULL, "partial_rotary_factor", 0.5), "layer 3 (full) rotated pairs", 8, 4),
        ("factor", rope(FULL, "factor", 2.0), "layer 3 (full) rope factor", 2.0, 1.0),
    ]
]  # fmt: skip


@both_backends
@each(FAULTS)
def test_a_drafter_of_another_target_is_refused_with_both_values(fault, backend, tmp_path):
    check(fault, tmp_path, backend=backend)


def test_a_drafter_that_does_not_share_all_its_layers_is_refused(tmp_path):
    said = (CONFIG, "num_kv_shared_layers must be 4", "found 2")
    check(Fault("shared", value("num_kv_shared_layers", 2), said, CheckpointError), tmp_path)


@pytest.mark.parametrize("other", ["e2b", "e4b"])
def test_a_drafter_of_another_variant_is_refused(other, tmp_path):
    target, _ = copy_pair(tmp_path / "one", "31b")
    _, drafter = copy_pair(tmp_path / "two", other)
    error = refusal(target, drafter)
    assert type(error) is DrafterMismatch
    assert "K/V heads" in str(error)


def test_a_drafter_of_a_kind_that_the_target_lacks_is_refused(tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    edit_json(target / "config.json", with_value("layer_types", [SLIDING] * 6))
    error = refusal(target, drafter)
    assert type(error) is DrafterMismatch
    assert "layer 3 (full) reads full attention K/V" in str(error)
