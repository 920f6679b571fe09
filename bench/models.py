"""The published pairs for benchmarks: their configs, whole or shrunken, and random models of them.

`shrink` F divides what makes a model heavy: hidden and MLP widths, those of experts too, the
vocabulary, query and K/V heads, all rounded up to what quantisation needs. Layers, head sizes,
windows and the number of experts stay, so a shrunken round has the graph of the real one.
"""

from dataclasses import dataclass, replace

from mtp_mlx.config import CentroidSpec, DrafterConfig, LayerSpec, TargetConfig
from mtp_mlx.fit import round_up
from mtp_mlx.quantization import Quantization, QuantSpec
from mtp_mlx.shapes import GROUP_SIZE, published

STORAGES = ("4bit", "8bit", "bf16")


@dataclass(frozen=True)
class Choice:
    """A published pair: which, how target and drafter are stored, and how far it is shrunken."""

    pair: str
    storage: str = "4bit"
    drafter: str = "bf16"  # as published
    shrink: int = 1


def configs(choice: Choice) -> tuple[TargetConfig, DrafterConfig]:
    """Both configs of a pair, paired."""
    pair = published(f"{choice.pair}-{choice.storage}")
    assert pair is not None, f"no published pair is meant by {choice}"
    target, drafter, shrink = pair.target, pair.drafter, choice.shrink
    if choice.drafter != "bf16":
        bits = int(choice.drafter.removesuffix("bit"))
        stored = Quantization(QuantSpec(GROUP_SIZE, bits, "affine"), {})
        drafter = replace(drafter, quantization=stored)
    if shrink == 1:
        return target, drafter
    small = replace(
        target,
        hidden_size=_width(target.hidden_size, shrink),
        vocab_size=_width(target.vocab_size, shrink),
        layers=tuple(_layer(layer, shrink) for layer in target.layers),
    )
    centroids = drafter.centroids
    return small, replace(
        drafter,
        backbone_hidden_size=small.hidden_size,
        hidden_size=_width(drafter.hidden_size, shrink),
        vocab_size=small.vocab_size,
        layers=tuple(_layer(layer, shrink) for layer in drafter.layers),
        centroids=None if centroids is None else _centroids(centroids, drafter, small, shrink),
    )


def _width(width: int, shrink: int) -> int:
    return round_up(-(-width // shrink), GROUP_SIZE)


def _layer(layer: LayerSpec, shrink: int) -> LayerSpec:
    """Fewer heads and narrower matrices; `heads` stays a multiple of `kv_heads`."""
    kv_heads = max(layer.kv_heads // shrink, 1)
    experts = layer.experts
    return replace(
        layer,
        kv_heads=kv_heads,
        heads=max(layer.heads // shrink // kv_heads, 1) * kv_heads,
        ffn_dim=_width(layer.ffn_dim, shrink),
        experts=None if experts is None else replace(experts, width=_width(experts.width, shrink)),
    )


def _centroids(
    spec: CentroidSpec, drafter: DrafterConfig, small: TargetConfig, shrink: int
) -> CentroidSpec:
    """As many tokens of a cluster, so fewer clusters; the same share of them is scored."""
    cluster = drafter.vocab_size // spec.num
    return CentroidSpec(small.vocab_size // cluster, max(spec.top_k // shrink, 1))
