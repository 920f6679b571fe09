import json
import os
import struct

import mlx.core as mx
import pytest

from mtp_mlx.errors import CheckpointError, ModelNotFound, UnsupportedModel
from mtp_mlx.files import check_unchanged, read_json, stat_snapshot
from mtp_mlx.validate import INDEX_NAME, checkpoint_files, read_checkpoint, read_header


def write_shard(path, *names):
    """A safetensors file with one four-byte tensor for each name."""
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
            for i, name in enumerate(names)
        }
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * len(names)))


def write_index(folder, weight_map):
    (folder / INDEX_NAME).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.fixture
def two_shards(tmp_path):
    write_shard(tmp_path / "model-00001-of-00002.safetensors", "a", "b")
    write_shard(tmp_path / "model-00002-of-00002.safetensors", "c")
    return tmp_path


FULL_MAP = {
    "a": "model-00001-of-00002.safetensors",
    "b": "model-00001-of-00002.safetensors",
    "c": "model-00002-of-00002.safetensors",
}


def test_a_single_file_is_a_checkpoint(tmp_path):
    write_shard(tmp_path / "model.safetensors", "a")
    write_shard(tmp_path / "adapters.safetensors", "other")
    assert list(read_checkpoint(tmp_path)) == ["a"]


def test_shards_are_read_with_and_without_an_index(two_shards):
    assert sorted(read_checkpoint(two_shards)) == ["a", "b", "c"]
    write_index(two_shards, FULL_MAP)
    assert sorted(read_checkpoint(two_shards)) == ["a", "b", "c"]
    assert [file.name for file in checkpoint_files(two_shards)] == sorted(set(FULL_MAP.values()))


def test_a_missing_shard_is_named(two_shards):
    (two_shards / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="expected the shards 1 to 2"):
        read_checkpoint(two_shards)
    write_index(two_shards, FULL_MAP)
    with pytest.raises(CheckpointError, match=r"missing files: model-00002-of-00002\.safetensors"):
        read_checkpoint(two_shards)


def test_only_five_names_are_listed(two_shards):
    write_index(two_shards, FULL_MAP | {f"x{i}": FULL_MAP["a"] for i in range(9)})
    with pytest.raises(CheckpointError, match=r"no file has: x0, x1, x2, x3, x4 and 4 more$"):
        read_checkpoint(two_shards)


@pytest.mark.parametrize(
    ("weight_map", "refusal"),
    [
        ({"a": FULL_MAP["a"], "c": FULL_MAP["c"]}, "does not list these tensors: b"),
        (FULL_MAP | {"b": FULL_MAP["c"]}, "names the wrong file for: b"),
        (FULL_MAP | {"b": 7}, "expected file names"),
        ({}, "expected a weight_map"),
        ([], "expected a weight_map"),
        (None, "expected a weight_map"),
    ],
)
def test_an_index_that_disagrees_with_the_files_is_refused(two_shards, weight_map, refusal):
    write_index(two_shards, weight_map)
    with pytest.raises(CheckpointError, match=refusal):
        read_checkpoint(two_shards)


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors",
        "/etc/x.safetensors",
        "sub/x.safetensors",
        "..\\x.safetensors",
        "C:\\x.safetensors",
        ".safetensors",
        "a\x00.safetensors",
        "a\n.safetensors",
    ],
)
def test_an_index_names_plain_files_only(two_shards, name):
    write_index(two_shards, FULL_MAP | {"b": name})
    with pytest.raises(CheckpointError, match="expected a plain file name") as caught:
        read_checkpoint(two_shards)
    assert "\n" not in str(caught.value)


def test_an_index_may_not_name_a_pickle(two_shards):
    write_index(two_shards, FULL_MAP | {"b": "pytorch_model.bin"})
    with pytest.raises(UnsupportedModel, match=r"unsupported format: pytorch_model\.bin"):
        read_checkpoint(two_shards)


@pytest.mark.parametrize("name", ["model.safetensors", INDEX_NAME])
def test_a_link_out_of_the_folder_is_refused(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    write_shard(tmp_path / "secret", "a")
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="leads out of the model folder"):
        read_checkpoint(folder)


def test_the_hub_caches_links_to_blobs_of_the_same_repository_are_allowed(tmp_path):
    for repository in ("models--x--y", "models--other"):
        (tmp_path / repository / "blobs").mkdir(parents=True)
    snapshot = tmp_path / "models--x--y" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    link = snapshot / "model.safetensors"
    write_shard(tmp_path / "models--x--y" / "blobs" / "f00", "a")
    write_shard(tmp_path / "models--other" / "blobs" / "f00", "a")
    link.symlink_to("../../blobs/f00")
    assert read_checkpoint(snapshot)["a"].file == link
    link.unlink()
    link.symlink_to("../../../models--other/blobs/f00")
    with pytest.raises(CheckpointError, match="leads out of the model folder"):
        read_checkpoint(snapshot)


def test_a_tensor_in_two_shards_is_refused(two_shards):
    write_shard(two_shards / "model-00002-of-00002.safetensors", "c", "a")
    with pytest.raises(CheckpointError, match="tensor 'a' is also in"):
        read_checkpoint(two_shards)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.gguf", "weights.npz"])
def test_other_formats_are_refused_unopened(tmp_path, name):
    os.mkfifo(tmp_path / name)  # opening it would block for ever
    with pytest.raises(UnsupportedModel, match="unsupported format"):
        read_checkpoint(tmp_path)


def test_a_pipe_in_place_of_a_file_is_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="expected a regular file"):
        read_json(tmp_path / "config.json")


def test_a_missing_folder_or_model_is_not_found(tmp_path):
    with pytest.raises(ModelNotFound, match="no such model folder"):
        checkpoint_files(tmp_path / "none")
    with pytest.raises(ModelNotFound, match=r"no model\.safetensors"):
        checkpoint_files(tmp_path)


def test_a_checkpoint_without_tensors_is_refused(tmp_path):
    write_shard(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_checkpoint(tmp_path)


def test_read_json_gives_the_object(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"é": [1, 2.5, null, "\\\\\\"["], "b": {"c": true}}', encoding="utf-8")
    assert read_json(path) == {"é": [1, 2.5, None, '\\"['], "b": {"c": True}}


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[1]", "expected a JSON object, found list"),
        (b"3", "expected a JSON object, found int"),
        (b'{"a": NaN}', "not finite"),
        (b'{"a": -Infinity}', "not finite"),
        (b'{"a": 1e999}', "not finite"),
        (b'{"a": 1%s}' % (b"0" * 5000), "5,001 digits"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "deeper than 64"),
        (b'{"a": "\xff"}', "not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), "not valid JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "not valid JSON"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b"{}" + b" " * 99, "expected at most 100 bytes, found 101"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_damaged_json_file_is_refused_by_name(tmp_path, content, refusal):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    limit_bytes = 100 if "at most" in refusal else 1 << 20
    with pytest.raises(CheckpointError, match=refusal) as caught:
        read_json(path, limit_bytes)
    assert str(caught.value).partition("/")[2].startswith("config.json: ")


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read: No such file"):
        read_json(tmp_path / "config.json")


def test_a_file_replaced_edited_or_removed_during_the_load_is_noticed(two_shards):
    paths = checkpoint_files(two_shards)
    before = stat_snapshot(paths)
    check_unchanged(before, paths)
    os.utime(paths[0], ns=(1, 1))
    with pytest.raises(CheckpointError, match="changed while loading"):
        check_unchanged(before, paths)
    before = stat_snapshot(paths)
    content = paths[1].read_bytes()
    old = paths[1].stat()
    (two_shards / "new").write_bytes(content)
    os.utime(two_shards / "new", ns=(old.st_atime_ns, old.st_mtime_ns))
    (two_shards / "new").replace(paths[1])
    with pytest.raises(CheckpointError, match="changed while loading"):
        check_unchanged(before, paths)
    paths[1].unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        check_unchanged(before, paths)


def test_null_metadata_as_mlx_writes_it_is_accepted(tmp_path):
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), {"a": mx.zeros((2, 3))})
    header_bytes = int.from_bytes(path.read_bytes()[:8], "little")
    assert b"__metadata__" in path.read_bytes()[8 : 8 + header_bytes]
    assert read_header(path)["a"].shape == (2, 3)
