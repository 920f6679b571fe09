"""A5: an index or a link that leads out of the model folder."""

import os
from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx.errors import UnsupportedModel
from tests.bad_input.faults import Damage, Fault, check, each, in_target_json
from tests.bad_input.files import INDEX, WEIGHTS, copy_pair

SHARD = "model-00001-of-00003.safetensors"


def placed(name: str) -> Damage:
    """The index says that a tensor lies in the file `name`."""
    return in_target_json(INDEX, lambda index: index["weight_map"].update(x=name))


def linked(name: str, to: str) -> Damage:
    """`name` of the target is a link."""

    def damage(target: Path, drafter: Path) -> None:
        (target / name).unlink()
        (target / name).symlink_to(to)

    return damage


def led_out(role: str, name: str) -> Damage:
    """`name` is a link to a good copy of itself elsewhere."""

    def damage(target: Path, drafter: Path) -> None:
        path = {"target": target, "drafter": drafter}[role] / name
        path.rename(target.parent / "elsewhere")
        path.symlink_to("../elsewhere")

    return damage


PLAIN = "expected a plain file name"
FAULTS = [
    Fault("parent", placed("../x.safetensors"), ("../x.safetensors", PLAIN)),
    Fault("absolute", placed("/x.safetensors"), ("/x.safetensors", PLAIN)),
    Fault("passwd", placed("/etc/passwd"), ("/etc/passwd", "unsupported"), UnsupportedModel),
    Fault("nested", placed("a/b.safetensors"), ("a/b.safetensors", PLAIN)),
    Fault("backslash", placed("..\\x.safetensors"), ("x.safetensors", PLAIN)),
    Fault("dots", placed("..safetensors"), ("..safetensors", PLAIN)),
    Fault("long", placed("9" * 5000 + ".safetensors"), ("999...", PLAIN)),
    Fault("newline", placed("a\nb.safetensors"), ("a\\nb.safetensors", PLAIN)),
    Fault("link", linked(SHARD, "/etc/passwd"), (SHARD, "leads out of the model folder")),
    Fault("relative", linked(SHARD, "../x"), (SHARD, "leads out of the model folder")),
    Fault("index", linked(INDEX, "/etc/passwd"), (INDEX, "leads out of the model folder")),
]


@each(FAULTS)
def test_a_path_out_of_the_folder_is_refused(fault, tmp_path):
    check(fault, tmp_path, shards=3)


SMALL = [("target", name) for name in (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja",
)] + [("drafter", name) for name in ("config.json", "tokenizer.json", WEIGHTS)]  # fmt: skip


@each(
    [
        Fault(f"{role}/{name}", led_out(role, name), (name, "leads out of the model folder"))
        for role, name in SMALL
    ]
)
def test_a_small_file_that_leads_out_of_the_folder_is_refused_too(fault, tmp_path):
    check(fault, tmp_path)


def test_links_inside_the_folder_are_followed(tmp_path):
    target, _ = copy_pair(tmp_path, "31b")
    (target / "files").mkdir()
    for name in ("config.json", "tokenizer.json", WEIGHTS):
        (target / name).rename(target / "files" / name)
        (target / name).symlink_to(f"files/{name}")
    assert mtp_mlx.load(target, draft_model=None).logits([2]).shape == (1, 256)


@pytest.mark.parametrize("is_own", [True, False])
def test_links_of_the_hub_cache_lead_into_its_own_blobs_only(is_own, tmp_path):
    target, _ = copy_pair(tmp_path, "31b")
    blobs = tmp_path / ("models--a--b" if is_own else "models--c--d") / "blobs"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0f"
    blobs.mkdir(parents=True)
    snapshot.parent.mkdir(parents=True)
    target.rename(snapshot)
    (snapshot / WEIGHTS).rename(blobs / "6d")
    (snapshot / WEIGHTS).symlink_to(os.path.relpath(blobs / "6d", snapshot))
    if is_own:
        assert mtp_mlx.load(snapshot, draft_model=None).logits([2]).shape == (1, 256)
    else:
        with pytest.raises(mtp_mlx.CheckpointError, match="leads out of the model folder"):
            mtp_mlx.load(snapshot, draft_model=None)


@pytest.mark.parametrize("fault", ["none", "name", "place"])
def test_blobs_that_repositories_share_are_read_by_their_hash_only(fault, tmp_path):
    target, _ = copy_pair(tmp_path, "31b")
    cache, name = tmp_path / "hub", "6d" * 32 if fault != "name" else "6d"
    snapshot, blobs = cache / "models--a--b" / "snapshots" / "0f", cache / "models--a--b" / "blobs"
    shared = cache / ("blobs" if fault != "place" else "other") / "6d"
    for folder in (blobs, snapshot.parent, shared):
        folder.mkdir(parents=True)
    target.rename(snapshot)
    (snapshot / WEIGHTS).rename(shared / name)
    (blobs / "e7").symlink_to(os.path.relpath(shared / name, blobs))
    (snapshot / WEIGHTS).symlink_to("../../blobs/e7")
    if fault == "none":
        assert mtp_mlx.load(snapshot, draft_model=None).logits([2]).shape == (1, 256)
    else:
        with pytest.raises(mtp_mlx.CheckpointError, match="leads out of the model folder"):
            mtp_mlx.load(snapshot, draft_model=None)
