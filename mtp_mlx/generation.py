"""generation_config.json: how a checkpoint wants to be sampled, and where its replies end."""

from dataclasses import dataclass
from pathlib import Path

from mtp_mlx.fields import Fields
from mtp_mlx.files import inside, read_json


@dataclass(frozen=True)
class Defaults:
    """Sampling a request falls back on; without a generation_config, greedy."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    eos_ids: tuple[int, ...] = ()


def read_defaults(folder: Path, vocab_size: int) -> Defaults:
    """The defaults in `folder`; raises CheckpointError for a value out of range."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return Defaults()
    fields = Fields(read_json(inside(folder, path.name)), str(path))
    eos_ids = fields.token_ids("eos_token_id", vocab_size)
    is_sampled = fields.flag("do_sample") or (
        not fields.has("do_sample") and fields.has("temperature")
    )
    if not is_sampled:
        return Defaults(eos_ids=eos_ids)
    top_p = _number(fields, "top_p", 1.0, 1.0)
    if top_p == 0.0:
        raise fields.fail("top_p", "above 0", top_p)
    return Defaults(
        temperature=_number(fields, "temperature", 1.0, 1e4),
        top_k=fields.integer("top_k", 0, 1 << 30) if fields.has("top_k") else 0,
        top_p=top_p,
        min_p=_number(fields, "min_p", 0.0, 1.0),
        eos_ids=eos_ids,
    )


def _number(fields: Fields, key: str, default: float, high: float) -> float:
    return fields.number(key, 0.0, high) if fields.has(key) else default
