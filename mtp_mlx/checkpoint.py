"""A checkpoint folder as a typed table of tensors, before any weight is read.

`open_target` and `open_drafter` check headers, config and names; the backends
(`model.load`, `reference.load`) then read the tensors the table lists.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Generic, TypeVar

from mtp_mlx.config import DrafterConfig, TargetConfig, read_drafter, read_target
from mtp_mlx.embedded import FOLDERS, NAMES, embedded_folder
from mtp_mlx.errors import CheckpointError, DrafterMismatch, ModelNotFound
from mtp_mlx.fields import Fields, shown_name
from mtp_mlx.files import check_unchanged, inside, read_json, read_small, stat_snapshot
from mtp_mlx.keys import canonical_key, is_always_read, is_unused
from mtp_mlx.pair_names import DRAFTER_SUFFIX, unconverted
from mtp_mlx.quantization import PACKED_BITS, Quantization, QuantSpec
from mtp_mlx.validate import TensorInfo, checkpoint_files, read_checkpoint

Config = TypeVar("Config", TargetConfig, DrafterConfig)

CONFIG = "config.json"
REMEDY = (
    f"give {' or '.join(NAMES)}, which are built in, a model of the hub that was pulled (e4b-4bit, "
    "org/name), or the path of a checkpoint"
)
DRAFTER_REMEDY = "give the path of the target's drafter, or auto, or none to decode plainly"
TOKENIZER_NAMES = ("tokenizer.json", "tokenizer.model")
TOKENIZER_LIMIT_BYTES = 64 << 20  # Gemma 4's tokenizer.json has 33 MB
FLOATS = ("F32", "F16", "BF16")
INTEGERS = ("I32", "I64")
_KEY = re.compile(r"[A-Za-z0-9_.]{1,200}")  # wider than the name of any tensor of any Gemma
_SHARED_PARTS = re.compile(r"layers\.(\d+)\.self_attn\.(k_proj|v_proj|k_norm|v_norm)\.")


@dataclass(frozen=True)
class Checkpoint(Generic[Config]):
    """A validated folder: `tensors` by canonical key; `num_unused` (vision, audio) ignored.

    `check_all`: its numbers are to be searched for NaN and infinity, not only the norms and table.
    """

    folder: Path
    config: Config
    tensors: Mapping[str, TensorInfo]
    num_unused: int
    stamp: tuple
    check_all: bool = False

    @property
    def files(self) -> list[Path]:
        return _files(self.tensors.values())

    def must_be_finite(self, key: str) -> bool:
        """Is this tensor searched for NaN and infinity when it is read?"""
        return self.check_all or is_always_read(key)

    def place_of(self, key: str) -> Path:
        """The file with this tensor; the folder for a part of one that was split."""
        return self.tensors[key].file if key in self.tensors else self.folder

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


def find_folder(model: str | Path, remedy: str = REMEDY) -> Path:
    """The folder of an embedded model's name, or of a path. Raises ModelNotFound with `remedy`."""
    if not str(model):
        raise ModelNotFound(f"the model's name is empty; {remedy}")
    if isinstance(model, str) and model in FOLDERS:
        return embedded_folder(str(model))
    with suppress(OSError, RuntimeError):  # a name too long for the system; a ~user it lacks
        folder = Path(model).expanduser()
        if folder.is_dir():
            return folder
    raise ModelNotFound(f"{shown_name(str(model))}: no such model or folder; {remedy}")


def find_drafter(target: Path) -> Path | None:
    """The drafter beside a target, or None.

    Published names are NAME-assistant, with the converters' suffixes: for gemma-4-E4B-it-4bit also
    gemma-4-E4B-it-assistant and gemma-4-E4B-it-assistant-bf16, the plainest name first.
    """
    folder = target.resolve()
    for name in (folder.name, unconverted(folder.name)):
        beside = folder.parent.glob(f"{escape(name)}{DRAFTER_SUFFIX}*")
        found = [path for path in beside if (path / CONFIG).is_file()]
        if found:
            return min(found, key=lambda path: (len(path.name), path.name))
    return None


def check_tokenizers(target: Path, drafter: Path) -> None:
    """Raise DrafterMismatch when both folders carry a tokenizer and the two differ in any id."""
    for name in TOKENIZER_NAMES:
        if (target / name).is_file() and (drafter / name).is_file():
            _check_alike(inside(target, name), inside(drafter, name))
            return


def _check_alike(ours: Path, theirs: Path) -> None:
    if read_small(ours, TOKENIZER_LIMIT_BYTES) == read_small(theirs, TOKENIZER_LIMIT_BYTES):
        return
    if ours.suffix != ".json" or _tokenizer_digest(ours) != _tokenizer_digest(theirs):
        raise DrafterMismatch(
            f"{theirs}: vocabulary or special ids differ from {ours}; "
            "use the drafter of this target, or --draft-model none"
        )


def _tokenizer_digest(path: Path) -> str:
    """Hash of pieces, merges and added ids, whatever the file's formatting."""
    fields = Fields(read_json(path, TOKENIZER_LIMIT_BYTES), str(path))
    model = fields.section("model")
    entries, merges = fields.get("added_tokens", []), model.get("merges", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise fields.fail("added_tokens", "a list of objects", entries)
    if not isinstance(merges, list):
        raise model.fail("merges", "a list", merges)
    added = sorted(json.dumps([entry.get("id"), entry.get("content")]) for entry in entries)
    pairs = [" ".join(map(str, merge)) if isinstance(merge, list) else merge for merge in merges]
    content = json.dumps([model.get("vocab", None), pairs, added], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _config(folder: Path) -> dict:
    if not folder.is_dir():
        raise ModelNotFound(f"{folder}: no such folder; {REMEDY}")
    checkpoint_files(folder)  # says first what is no checkpoint at all
    return read_json(inside(folder, CONFIG))


def _files(infos: Iterable[TensorInfo]) -> list[Path]:
    return sorted({info.file for info in infos})


def _open(folder: Path, config: Config, is_idle: Callable[[str], bool]) -> Checkpoint[Config]:
    files = checkpoint_files(folder)
    stamps = dict(zip(files, stat_snapshot(files), strict=True))
    infos = read_checkpoint(folder)
    tensors: dict[str, TensorInfo] = {}
    num_unused = 0
    for name, info in infos.items():
        key = canonical_key(name)
        if is_unused(name):
            num_unused += 1
            continue
        if not _KEY.fullmatch(key):
            raise CheckpointError(
                f"{info.file}: tensor {shown_name(name)} is not part of this model"
            )
        if is_idle(key) or key.startswith("lm_head."):
            num_unused += 1
            continue
        if key in tensors:
            raise CheckpointError(
                f"{info.file}: {name} and {tensors[key].name} are the same tensor"
            )
        tensors[key] = info
    _check_storage(tensors, config.quantization)
    stamp = tuple(stamps.get(file) for file in _files(tensors.values()))
    return Checkpoint(folder, config, tensors, num_unused, stamp)


def _check_storage(tensors: Mapping[str, TensorInfo], quantization: Quantization | None) -> None:
    """Refuse a tensor of another type than its place takes, and packed ones of odd shape."""
    allowed: dict[str, tuple[str, ...]] = {}
    for key in tensors:
        if key.endswith(".scales"):
            allowed |= _packed_types(tensors, key.removesuffix(".scales"), quantization)
    for key, info in tensors.items():
        types = INTEGERS if key.endswith(".token_ordering") else allowed.get(key, FLOATS)
        if info.dtype not in types:
            scales = f"{key.rpartition('.')[0]}.scales"
            hint = f" (U32 with {scales}, which is missing)" if info.dtype == "U32" else ""
            raise CheckpointError(
                f"{info.file}: tensor {key} must be of type {' or '.join(types)}{hint}, "
                f"found {info.dtype}"
            )


def _packed_types(
    tensors: Mapping[str, TensorInfo], path: str, quantization: Quantization | None
) -> dict[str, tuple[str, ...]]:
    """Types of the tensors of a quantised module, whose shapes must agree with the config."""
    scales = tensors[f"{path}.scales"]
    if quantization is None:
        raise CheckpointError(
            f"{scales.file}: {path} is quantised, and config.json has no quantization section"
        )
    spec = quantization.of(path)
    if spec is None:
        raise CheckpointError(
            f"{scales.file}: {path} has scales, config.json says it is not quantised"
        )
    is_affine = spec.mode == "affine"
    for part in ("weight", "biases") if is_affine else ("weight",):
        if f"{path}.{part}" not in tensors:
            raise CheckpointError(f"{scales.file}: tensor {path}.{part} is missing")
    weight = tensors[f"{path}.weight"]
    biases = tensors[f"{path}.biases"] if is_affine else scales
    if not _is_packed(spec, weight.shape, scales.shape) or biases.shape != scales.shape:
        raise CheckpointError(
            f"{weight.file}: tensor {path}.weight of shape {list(weight.shape)}, scales "
            f"{list(scales.shape)} and biases {list(biases.shape)} are not "
            f"{spec.bits} bits in groups of {spec.group_size}, as config.json says"
        )
    types = FLOATS if is_affine else ("U8",)
    return {f"{path}.weight": ("U32",), f"{path}.scales": types, f"{path}.biases": types}


def _is_packed(spec: QuantSpec, weight: tuple[int, ...], scales: tuple[int, ...]) -> bool:
    """Whether rows of a matrix `weight` hold as many values as the groups of `scales`."""
    if len(scales) < 2 or weight[:-1] != scales[:-1]:
        return False
    return weight[-1] * PACKED_BITS == scales[-1] * spec.group_size * spec.bits


def _is_idle_shared(config: TargetConfig, key: str) -> bool:
    """K/V parts of layers that read another layer's K/V; older uploads still carry them."""
    found = _SHARED_PARTS.match(key)
    if not found or int(found[1]) >= len(config.layers):
        return False
    return not config.owns_cache(int(found[1]))
