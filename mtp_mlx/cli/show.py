"""`mtp-mlx show`: what a model is, where it lies and which drafter it has."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.meter import bytes_text
from mtp_mlx.cli.options import Grouped, model_argument, named_by_user, option
from mtp_mlx.cli.stats import aligned
from mtp_mlx.fields import shown_name

if TYPE_CHECKING:
    from mtp_mlx.checkpoint import Checkpoint
    from mtp_mlx.config import TargetConfig
    from mtp_mlx.quantization import Quantization

UNKNOWN = "unknown"
PACKED_BITS = 32  # of the words that hold quantised values


@click.command(cls=Grouped)
@model_argument
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(model: str, as_json: bool) -> None:
    """Show MODEL (tiny when absent): files, revision, layers, storage, sampling, drafter.

    Reads no weights and needs no network; what is not here is fetched by mtp-mlx pull.
    """
    from mtp_mlx.hub.find import find_model

    named = {"model": model, "draft_model": "auto"}
    named |= named_by_user(named, is_later=True)
    body = _body(find_model(named["model"]), named["draft_model"])
    print(json.dumps(body) if as_json else aligned(_rows(body)))


def _body(folder: Path, draft_model: str) -> dict[str, Any]:
    """What --json prints."""
    from mtp_mlx.hub.cache import repo_of
    from mtp_mlx.hub.find import title
    from mtp_mlx.hub.manage import folder_bytes, kind_of
    from mtp_mlx.hub.record import record_of

    snapshot = repo_of(folder)
    record = None if snapshot is None else record_of(snapshot.repo, snapshot.commit)
    kind = kind_of(folder)
    body = {
        "name": title(folder),
        "kind": kind,
        "folder": str(folder),
        "bytes": folder_bytes(folder),
        "commit": None if snapshot is None else snapshot.commit,
        "revision": None if record is None else record.revision,
        "pulled_at": None if record is None else record.pulled_at,
        "verified": record is not None,
        "licence": None if record is None else record.licence,
    }
    if kind == "drafter":
        return body | _drafter_body(folder)
    return body | _target_body(folder, draft_model)


def _target_body(folder: Path, draft_model: str) -> dict[str, Any]:
    from mtp_mlx.backends import find_pair
    from mtp_mlx.checkpoint import open_target
    from mtp_mlx.generation import read_defaults
    from mtp_mlx.hub.find import title

    checkpoint = open_target(folder)
    config = checkpoint.config
    defaults = read_defaults(folder, config.vocab_size)
    pair = find_pair(folder, draft_model)
    return {
        "parameters": _parameters(checkpoint),
        "storage": _storage(config.quantization),
        "layers": len(config.layers),
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "context": config.max_positions,
        "sampling": {
            "temperature": defaults.temperature,
            "top_k": defaults.top_k,
            "top_p": defaults.top_p,
            "min_p": defaults.min_p,
        },
        "draft_model": None if pair.drafter is None else title(pair.drafter),
        "draft_note": None if pair.drafter is None else pair.note,
    }


def _drafter_body(folder: Path) -> dict[str, Any]:
    from mtp_mlx.config import read_drafter
    from mtp_mlx.files import read_json

    config = read_drafter(read_json(folder / "config.json"), str(folder))
    return {
        "storage": _storage(config.quantization),
        "layers": len(config.layers),
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "backbone_hidden_size": config.backbone_hidden_size,
    }


def _storage(quantization: "Quantization | None") -> str:
    if quantization is None:
        return "plain"
    spec = quantization.default
    own = {path: one for path, one in quantization.overrides.items() if one != spec}
    mixed = f", {len(own)} modules otherwise" if own else ""
    return f"{spec.mode}, {spec.bits} bits in groups of {spec.group_size}{mixed}"


def _parameters(checkpoint: "Checkpoint[TargetConfig]") -> int:
    """Values of the model's own tensors, those that are packed counted one by one."""
    total = 0
    for key, info in checkpoint.tensors.items():
        path, _, part = key.rpartition(".")
        if part in ("scales", "biases") and f"{path}.scales" in checkpoint.tensors:
            continue
        number = math.prod(info.shape)
        if info.dtype == "U32" and checkpoint.config.quantization is not None:
            spec = checkpoint.config.quantization.of(path)
            number = number if spec is None else number * PACKED_BITS // spec.bits
        total += number
    return total


def _rows(body: dict[str, Any]) -> list[tuple[str, str]]:
    """What is printed without --json."""
    rows = [("model", f"{body['name']}, a {body['kind']}"), ("folder", body["folder"])]
    if body["commit"] is not None:
        asked = "" if body["revision"] is None else f", {body['revision']} when it was pulled"
        rows.append(("revision", body["commit"] + asked))
        at = body["pulled_at"]
        rows.append(("verified", f"{at[:10]}" if at else "no; mtp-mlx pull verifies it"))
    rows.append(("licence", shown_name(body["licence"] or UNKNOWN)))
    rows.append(("size", bytes_text(body["bytes"])))
    rows.append(("storage", body["storage"]))
    rows.append(("layers", f"{body['layers']} of width {body['hidden_size']:,}"))
    rows.append(("vocabulary", f"{body['vocab_size']:,}"))
    if body["kind"] == "drafter":
        rows.append(("made for", f"targets of width {body['backbone_hidden_size']:,}"))
        return rows
    rows.append(("parameters", f"{body['parameters']:,}"))
    rows.append(("context", f"{body['context']:,} tokens"))
    rows.append(
        ("sampling", ", ".join(f"{key} {value:g}" for key, value in body["sampling"].items()))
    )
    drafter = body["draft_model"] or "none here; decoding is plain"
    note = "" if body["draft_note"] is None else f" ({body['draft_note']})"
    rows.append(("drafter", drafter + note))
    return rows
