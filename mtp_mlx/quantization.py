"""The `quantization` section of a converted checkpoint: default and per-module settings."""

from collections.abc import Mapping
from dataclasses import dataclass

from mtp_mlx.errors import UnsupportedModel
from mtp_mlx.fields import Fields, shown
from mtp_mlx.keys import canonical_key

PACKED_BITS = 32  # quantised weights are stored in uint32
# What MLX's quantised kernels take: mode -> (bits, group sizes).
MODES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "affine": ((2, 3, 4, 5, 6, 8), (32, 64, 128)),
    "mxfp4": ((4,), (32,)),
    "mxfp8": ((8,), (32,)),
    "nvfp4": ((4,), (16,)),
}


@dataclass(frozen=True)
class QuantSpec:
    """How one weight is stored: `bits` a value, `group_size` values a scale."""

    group_size: int
    bits: int
    mode: str


@dataclass(frozen=True)
class Quantization:
    """The default, and exceptions by canonical module path; None: not quantised."""

    default: QuantSpec
    overrides: Mapping[str, QuantSpec | None]

    def of(self, path: str) -> QuantSpec | None:
        return self.overrides.get(path, self.default)


def read_quantization(top: Fields) -> Quantization | None:
    """The section of MLX converters, None where weights are plain; others' formats are refused."""
    key = "quantization" if top.has("quantization") else "quantization_config"
    if not top.has(key):
        return None
    section = top.section(key)
    if section.has("quant_method"):
        raise UnsupportedModel(
            f"{top.source}: {key} of kind {shown(section.get('quant_method'))} is not supported; "
            "convert the original weights with mlx_lm.convert"
        )
    default = _spec(section)
    overrides: dict[str, QuantSpec | None] = {}
    for path, value in section.values.items():
        if isinstance(value, dict):
            overrides[canonical_key(path)] = _spec(section.section(path))
        elif value is False:
            overrides[canonical_key(path)] = None
    return Quantization(default, overrides)


def _spec(fields: Fields) -> QuantSpec:
    mode = fields.get("mode", "affine")
    if not isinstance(mode, str) or mode not in MODES:
        raise fields.fail("mode", f"one of {', '.join(MODES)}", mode)
    allowed_bits, allowed_groups = MODES[mode]
    bits = fields.integer("bits", 1, 64)
    group_size = fields.integer("group_size", 1, 1 << 16)
    if bits not in allowed_bits:
        raise fields.fail("bits", f"one of {allowed_bits} for {mode}", bits)
    if group_size not in allowed_groups:
        raise fields.fail("group_size", f"one of {allowed_groups} for {mode}", group_size)
    return QuantSpec(group_size, bits, mode)
