"""A checkpoint folder as a typed table of tensors, before any weight is read.

`open_target` and `open_drafter` check headers, config and names; the backends
(`model.load`, `reference.load`) then read the tensors the table lists.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from mtp_mlx.config import DrafterConfig, TargetConfig, read_drafter, read_target
from mtp_mlx.errors import CheckpointError, DrafterMismatch, ModelNotFound
from mtp_mlx.fields import Fields
from mtp_mlx.keys import canonical_key, is_unused
from mtp_mlx.validate import TensorInfo, check_unchanged, read_checkpoint, read_json, stat_snapshot

Config = TypeVar("Config", TargetConfig, DrafterConfig)

CONFIG = "config.json"
_SHARED_PARTS = re.compile(r"layers\.(\d+)\.self_attn\.(k_proj|v_proj|k_norm|v_norm)\.")


@dataclass(frozen=True)
class Checkpoint(Generic[Config]):
    """A validated folder: `tensors` by canonical key; `num_unused` (vision, audio) ignored."""

    folder: Path
    config: Config
    tensors: Mapping[str, TensorInfo]
    num_unused: int
    stamp: tuple

    @property
    def files(self) -> list[Path]:
        return _files(self.tensors.values())

    def check_unchanged(self) -> None:
        """Raise CheckpointError when a file was replaced or edited since the headers were read."""
        check_unchanged(self.stamp, self.files)


def open_target(folder: Path) -> Checkpoint[TargetConfig]:
    """The target in `folder`. Raises CheckpointError, UnsupportedModel or ModelNotFound."""
    config = read_target(_config(folder), str(folder / CONFIG))
    return _open(folder, config, lambda key: _is_idle_shared(config, key))


def open_drafter(folder: Path, target: TargetConfig) -> Checkpoint[DrafterConfig]:
    """The drafter in `folder`, paired with `target`; raises DrafterMismatch where they differ."""
    config = read_drafter(_config(folder), str(folder / CONFIG)).paired_with(target)
    return _open(folder, config, lambda key: bool(_SHARED_PARTS.match(key)))


def find_folder(model: str | Path) -> Path:
    """The folder a model argument names; today that is a path."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if str(model) == "tiny":
        raise ModelNotFound(
            "the embedded model 'tiny' is not part of this version; give a checkpoint folder"
        )
    raise ModelNotFound(f"{model}: no such folder; give the path of a downloaded checkpoint")


def find_drafter(target: Path) -> Path | None:
    """The drafter beside a target, as NAME-assistant (the published naming), or None."""
    beside = target.resolve().with_name(target.resolve().name + "-assistant")
    return beside if beside.is_dir() else None


def check_tokenizers(target: Path, drafter: Path) -> None:
    """Raise DrafterMismatch when both folders carry a tokenizer and the two differ in any id."""
    ours, theirs = target / "tokenizer.json", drafter / "tokenizer.json"
    if not ours.is_file() or not theirs.is_file():
        return
    if _tokenizer_digest(ours) != _tokenizer_digest(theirs):
        raise DrafterMismatch(
            f"{theirs}: vocabulary or special ids differ from {ours}; "
            "use the drafter of this target, or --draft-model none"
        )


def _tokenizer_digest(path: Path) -> str:
    """Hash of pieces, merges and added ids, whatever the file's formatting."""
    fields = Fields(read_json(path), str(path))
    model = fields.section("model")
    added = [(entry.get("id"), entry.get("content")) for entry in fields.get("added_tokens", [])]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model.get("merges", [])]
    content = json.dumps([model.get("vocab", None), merges, sorted(added)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _config(folder: Path) -> dict:
    if not folder.is_dir():
        raise ModelNotFound(f"{folder}: no such folder; give the path of a downloaded checkpoint")
    return read_json(folder / CONFIG)


def _files(infos: Iterable[TensorInfo]) -> list[Path]:
    return sorted({info.file for info in infos})


def _open(folder: Path, config: Config, is_idle: Callable[[str], bool]) -> Checkpoint[Config]:
    infos = read_checkpoint(folder)
    tensors: dict[str, TensorInfo] = {}
    num_unused = 0
    for name, info in infos.items():
        key = canonical_key(name)
        if is_unused(name) or is_idle(key) or key == "lm_head.weight":
            num_unused += 1
            continue
        if key in tensors:
            raise CheckpointError(
                f"{info.file}: {name} and {tensors[key].name} are the same tensor"
            )
        tensors[key] = info
    return Checkpoint(folder, config, tensors, num_unused, stat_snapshot(_files(tensors.values())))


def _is_idle_shared(config: TargetConfig, key: str) -> bool:
    """K/V parts of layers that read another layer's K/V; older uploads still carry them."""
    found = _SHARED_PARTS.match(key)
    if not found or int(found[1]) >= len(config.layers):
        return False
    return not config.owns_cache(int(found[1]))
