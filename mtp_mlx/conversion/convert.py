"""A pair converted: target and drafter, each into a complete folder of its own, or none at all."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mtp_mlx.backends import Pair, open_pair
from mtp_mlx.checkpoint import (
    CONFIG,
    TOKENIZER_LIMIT_BYTES,
    Checkpoint,
    check_tokenizers,
    open_drafter,
    open_target,
)
from mtp_mlx.config import TargetConfig, read_drafter, read_target
from mtp_mlx.conversion.output import Output
from mtp_mlx.conversion.plan import Part, Plan, parts, quantization_section
from mtp_mlx.conversion.stream import SHARD_BYTES, Progress, write_parts
from mtp_mlx.errors import Unsupported
from mtp_mlx.files import inside, read_json, read_small
from mtp_mlx.keys import canonical_key
from mtp_mlx.model.drafter import Drafter
from mtp_mlx.model.target import Target
from mtp_mlx.pair_names import DRAFTER_SUFFIX

COPIED = (
    "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
TOWERS = ("vision_config", "audio_config")  # of parts that the new file does not have
DTYPE_KEYS = ("dtype", "torch_dtype")
BYTE_BITS = 8


@dataclass(frozen=True)
class Written:
    """One converted model. `left_out`: tensors that text never reads; `left_plain`: matrices whose
    rows no group divides."""

    folder: Path
    source: Path
    num_files: int
    source_bytes: int
    num_bytes: int
    num_weights: int
    left_out: int
    left_plain: tuple[str, ...]

    @property
    def bits_per_weight(self) -> float:
        return self.num_bytes * BYTE_BITS / self.num_weights

    def to_json(self) -> dict[str, Any]:
        fields = vars(self) | {"folder": str(self.folder), "source": str(self.source)}
        return fields | {"bits_per_weight": self.bits_per_weight}


@dataclass(frozen=True)
class Conversion:
    """What was written; `drafter` is None where the pair has none."""

    target: Written
    drafter: Written | None


def convert(
    pair: Pair,
    folder: Path,
    plans: tuple[Plan, Plan],
    output: Output,
    progress: Progress,
    shard_bytes: int = SHARD_BYTES,
) -> Conversion:
    """Write the target into `folder`, the drafter into the folder of that name and -assistant.

    `plans`: of the target and of the drafter. Raises CheckpointError, Unsupported for a model that
    is quantised already, MtpError where a folder is taken or the disk is too small; `output` has
    then removed all that was written.
    """
    folder = Path(os.path.realpath(folder))  # beside which a load looks for the drafter
    opened = open_pair(pair)
    jobs = [_Job.of_target(opened.target, plans[0], folder)]
    if opened.drafter is not None and pair.drafter is not None:
        check_tokenizers(pair.target, pair.drafter)
        name = folder.name + DRAFTER_SUFFIX  # where a load finds it by itself
        jobs.append(_Job.of_drafter(opened.drafter, plans[1], folder.with_name(name)))
    with output:
        for job in jobs:
            output.begin(job.folder)
        output.check_room(folder.parent, sum(job.num_bytes for job in jobs))
        written = [job.write(output, progress, shard_bytes) for job in jobs]
        _check_written(opened.target.config, [output.partial(job.folder) for job in jobs])
        output.commit()
    return Conversion(written[0], written[1] if len(written) > 1 else None)


def _check_written(config: TargetConfig, folders: list[Path]) -> None:
    """Raise CheckpointError unless the new folders are what a load takes."""
    open_target(folders[0])
    for drafter in folders[1:]:
        open_drafter(drafter, config)


@dataclass(frozen=True)
class _Job:
    """One model to be written: its parts and its config.json."""

    checkpoint: Checkpoint
    found: list[Part]
    values: dict[str, Any]
    folder: Path

    @classmethod
    def of_target(cls, checkpoint: Checkpoint, plan: Plan, folder: Path) -> "_Job":
        values = _values(checkpoint)
        is_wrapped = "text_config" in values
        prefix = "language_model.model." if is_wrapped else "model."
        found = parts(checkpoint, plan, prefix, is_drafter=False)
        text = values["text_config"] if is_wrapped else values
        _spell_classic(text, checkpoint.config)
        if is_wrapped:  # mlx-lm takes the size from the top level
            values["vocab_size"] = checkpoint.config.vocab_size
            for key in TOWERS:
                values.pop(key, None)
        _say_storage(values, found, plan)
        config = read_target(values, checkpoint.config.source)
        Target(config, _shapes(found))
        return cls(checkpoint, found, values, folder)

    @classmethod
    def of_drafter(cls, checkpoint: Checkpoint, plan: Plan, folder: Path) -> "_Job":
        values = _values(checkpoint)
        found = parts(checkpoint, plan, "model.", is_drafter=True)
        _say_storage(values, found, plan)
        config = read_drafter(values, checkpoint.config.source)
        Drafter(config, _shapes(found))
        return cls(checkpoint, found, values, folder)

    @property
    def num_bytes(self) -> int:
        return sum(part.num_bytes() for part in self.found)

    def write(self, output: Output, progress: Progress, shard_bytes: int) -> Written:
        """Everything into the folder that `output` has for it."""
        partial, source = output.partial(self.folder), self.checkpoint.folder
        files = write_parts(partial, self.found, shard_bytes, progress)
        self.checkpoint.check_unchanged()
        for name in COPIED:
            if (source / name).is_file():
                data = read_small(inside(source, name), TOKENIZER_LIMIT_BYTES)
                (partial / name).write_bytes(data)
        text = json.dumps(dict(sorted(self.values.items())), indent=2)
        (partial / CONFIG).write_text(text + "\n", encoding="utf-8")
        return Written(
            folder=self.folder,
            source=source,
            num_files=len(files),
            source_bytes=sum(info.end - info.begin for info in self.checkpoint.tensors.values()),
            num_bytes=self.num_bytes,
            num_weights=sum(math.prod(part.shape) for part in self.found),
            left_out=self.checkpoint.num_unused,
            left_plain=tuple(part.path for part in self.found if part.is_left_plain),
        )


def _values(checkpoint: Checkpoint) -> dict[str, Any]:
    """config.json anew, to be changed; refused where its weights are quantised."""
    quantization = checkpoint.config.quantization
    if quantization is not None:
        raise Unsupported(
            f"{checkpoint.folder}: is quantised already, to {quantization.default.bits} bits; "
            "give the original checkpoint"
        )
    return read_json(inside(checkpoint.folder, CONFIG))


def _spell_classic(text: dict[str, Any], config: TargetConfig) -> None:
    """Add the keys that mlx-lm reads where the file speaks the newer dialect."""
    full = [layer for layer in config.layers if layer.kind == "full"]
    if "per_layer_config" not in text or not full:
        return
    text.setdefault("global_head_dim", full[0].head_dim)
    text.setdefault("num_global_key_value_heads", full[0].kv_heads)


def _say_storage(values: dict[str, Any], found: list[Part], plan: Plan) -> None:
    """Write type and quantisation of the new tensors into config.json, twice as converters do."""
    section = quantization_section(found, plan.default)
    for key in ("quantization", "quantization_config"):
        values.pop(key, None)
        if section:
            values[key] = section
    if plan.dtype_name is not None:
        for fields in (values, values.get("text_config", {})):
            fields.update((key, plan.dtype_name) for key in DTYPE_KEYS if key in fields)


def _shapes(found: list[Part]) -> Mapping[str, mx.array]:
    """The new tensors by canonical key, of zeros that nobody evaluates: their names and shapes are
    checked against config.json before an hour of work."""
    return {
        canonical_key(name): mx.zeros(shape)
        for part in found
        for name, (_, shape) in part.tensors().items()
    }
