"""Filling a module tree from a flat dict of tensors: names, shapes and storage must fit."""

from collections.abc import Mapping

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mtp_mlx.errors import CheckpointError
from mtp_mlx.model.ffn import ExpertLinear
from mtp_mlx.quantization import Quantization

QUANTIZABLE = (nn.Linear, nn.Embedding, ExpertLinear)
SHOWN = 5  # names listed in one message


def fill(
    module: nn.Module,
    weights: Mapping[str, mx.array],
    quantization: Quantization | None,
    source: str,
) -> None:
    """Put `weights` (canonical key -> array) into `module`, quantised where scales say so.

    Raises CheckpointError that names the first missing, unexpected or misshapen tensors.
    """
    if quantization is not None:
        _quantize(module, weights, quantization, source)
    expected = dict(tree_flatten(module.parameters()))
    _names("is missing", expected.keys() - weights.keys(), source)
    _names("is not part of this model", weights.keys() - expected.keys(), source)
    for name, array in weights.items():
        if array.shape != expected[name].shape:
            raise CheckpointError(
                f"{source}: tensor {name} should have shape {list(expected[name].shape)} "
                f"by config.json, found {list(array.shape)}"
            )
    module.load_weights(list(weights.items()), strict=True)
    module.eval()


def _names(complaint: str, names: set[str], source: str) -> None:
    if names:
        listed = sorted(names)
        more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
        shown = ", ".join(listed[:SHOWN])
        raise CheckpointError(f"{source}: tensor {shown}{more} {complaint}")


def _quantize(
    module: nn.Module,
    weights: Mapping[str, mx.array],
    quantization: Quantization,
    source: str,
) -> None:
    """Turn the modules whose weights come with scales into their quantised form."""

    def setting(path: str, part: nn.Module) -> bool | dict[str, int | str]:
        spec = quantization.of(path)
        if f"{path}.scales" not in weights or spec is None or not isinstance(part, QUANTIZABLE):
            return False
        columns = part["weight"].shape[-1]
        if columns % spec.group_size:
            raise CheckpointError(
                f"{source}: {path} has rows of {columns}, not a multiple of group {spec.group_size}"
            )
        return {"group_size": spec.group_size, "bits": spec.bits, "mode": spec.mode}

    nn.quantize(module, class_predicate=setting)
