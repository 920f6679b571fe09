"""What a converted checkpoint will hold, tensor by tensor, decided from headers alone.

A `Part` is a matrix (or vector) of the new file and the rows of the old one that it is made of.
Published experts are fused; the new file has them apart, as mlx-lm writes and reads them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from mtp_mlx.checkpoint import FLOATS, Checkpoint
from mtp_mlx.errors import Unsupported
from mtp_mlx.quantization import MODES, QuantSpec
from mtp_mlx.validate import ITEM_BYTES, TensorInfo

# mode -> (group size, bits) where the user names neither, as in mlx-lm.
DEFAULTS = {"affine": (64, 4), "mxfp4": (32, 4), "nvfp4": (16, 4), "mxfp8": (32, 8)}
ROUTER = QuantSpec(64, 8, "affine")  # a wrong expert costs more than the bits save
# recipe -> bits of most matrices, and of the ones that matter most.
RECIPES = {"mixed_2_6": (2, 6), "mixed_3_4": (3, 4), "mixed_3_6": (3, 6), "mixed_4_6": (4, 6)}
DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
DRAFTER_HEAD = ("embed_tokens", "masked_embedding.centroids")
DRAFTER_ROOTS = ("pre_projection", "post_projection", "masked_embedding")
PACKED_BITS = 32
_EXPERT_AXES = 3  # [experts, out, in]


@dataclass(frozen=True)
class Plan:
    """How matrices are stored: `of` names the setting of one module, None for plain.

    `head` is that of a drafter's embedding table and centroids. `dtype`: of all floats, as a file
    spells it; None keeps each tensor's own.
    """

    default: QuantSpec | None = None
    head: QuantSpec | None = None
    recipe: str | None = None
    dtype: str | None = None

    @property
    def dtype_name(self) -> str | None:
        """The type as config.json spells it."""
        return None if self.dtype is None else DTYPE_NAMES[self.dtype]

    def of(self, path: str, num_layers: int, *, is_drafter: bool) -> QuantSpec | None:
        if is_drafter and path in DRAFTER_HEAD:
            return self.head
        if self.default is None or self.recipe is None or is_drafter:
            return ROUTER if self.default and path.endswith("router.proj") else self.default
        if path.endswith("router.proj"):
            return ROUTER
        low, high = RECIPES[self.recipe]
        has_more = "v_proj" in path or "down_proj" in path
        bits = high if has_more and _matters(_layer(path), num_layers) else low
        return QuantSpec(self.default.group_size, bits, "affine")


def quant_spec(mode: str, bits: int | None, group_size: int | None, flag: str) -> QuantSpec:
    """The setting that the user's options spell; raises Unsupported for one MLX has no kernel for.

    `flag`: the option whose value is at fault, for the message.
    """
    default_group, default_bits = DEFAULTS[mode]
    allowed_bits, allowed_groups = MODES[mode]
    spec = QuantSpec(group_size or default_group, bits or default_bits, mode)
    if spec.bits not in allowed_bits:
        raise Unsupported(
            f"{flag} of mode {mode} must be one of {_list(allowed_bits)}, found {bits}"
        )
    if spec.group_size not in allowed_groups:
        groups = _list(allowed_groups)
        raise Unsupported(
            f"--q-group-size of mode {mode} must be one of {groups}, found {group_size}"
        )
    return spec


def _list(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))


def _layer(path: str) -> int:
    """The number of the layer that holds the module; 0 for those outside."""
    found = [part for part in path.split(".") if part.isdecimal()]
    return int(found[0]) if found else 0


def _matters(layer: int, num_layers: int) -> bool:
    """The first and last eighth of the layers, and every third between, as in mlx-lm's recipes."""
    edge = num_layers // 8
    return layer < edge or layer >= 7 * num_layers // 8 or (layer - edge) % 3 == 2


@dataclass(frozen=True)
class Part:
    """One tensor of the new file, or the three of a quantised matrix.

    It is made of rows `first` to `first + rows` of each of `blocks` blocks of `stride` rows.
    `is_left_plain`: it was to be quantised, and no group divides its rows.
    """

    name: str
    source: TensorInfo
    shape: tuple[int, ...]
    dtype: str
    spec: QuantSpec | None
    blocks: int
    stride: int
    first: int
    rows: int
    is_left_plain: bool = False

    @property
    def columns(self) -> int:
        return self.shape[-1] if self.shape else 1

    @property
    def path(self) -> str:
        """The module's name, in the words of the new file."""
        return self.name.removesuffix(".weight")

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name, type and shape of what is written, in this order."""
        if self.spec is None:
            return {self.name: (self.dtype, self.shape)}
        rows, spec = self.shape[:-1], self.spec
        packed = (*rows, self.columns * spec.bits // PACKED_BITS)
        grouped = (*rows, self.columns // spec.group_size)
        scales = self.dtype if spec.mode == "affine" else "U8"
        found = {
            f"{self.path}.weight": ("U32", packed),
            f"{self.path}.scales": (scales, grouped),
        }
        if spec.mode == "affine":
            found[f"{self.path}.biases"] = (self.dtype, grouped)
        return found

    def num_bytes(self) -> int:
        return sum(ITEM_BYTES[dtype] * math.prod(shape) for dtype, shape in self.tensors().values())


def parts(checkpoint: Checkpoint, plan: Plan, prefix: str, *, is_drafter: bool) -> list[Part]:
    """Every part of the new file, by canonical key in sorted order; `prefix` goes before each."""
    num_layers = len(checkpoint.config.layers)
    found = []
    for key in sorted(checkpoint.tensors):
        for name, part in _split(key, checkpoint.tensors[key]):
            is_matrix = _is_matrix(name, part)
            path = name.removesuffix(".weight")
            wanted = plan.of(path, num_layers, is_drafter=is_drafter) if is_matrix else None
            fits = wanted is not None and part.columns % wanted.group_size == 0
            is_root = is_drafter and name.startswith(DRAFTER_ROOTS)
            is_float = part.source.dtype in FLOATS
            found.append(
                replace(
                    part,
                    name=name if is_root else prefix + name,
                    dtype=plan.dtype if plan.dtype and is_float else part.dtype,
                    spec=wanted if fits else None,
                    is_left_plain=wanted is not None and not fits,
                )
            )
    return found


def _is_matrix(name: str, part: Part) -> bool:
    return name.endswith(".weight") and len(part.shape) > 1 and part.source.dtype in FLOATS


def _split(key: str, info: TensorInfo) -> Iterator[tuple[str, Part]]:
    """Name and part of a tensor; published fused experts make two, or get their converted name."""
    stem = key.rsplit(".", 1)[0] + ".switch_glu."
    rows = math.prod(info.shape[:-1])
    whole = Part(key, info, info.shape, info.dtype, None, 1, rows, 0, rows)
    if key.endswith("experts.gate_up_proj") and len(info.shape) == _EXPERT_AXES:
        experts, fused, columns = info.shape
        half = fused // 2
        for name, first in (("gate_proj", 0), ("up_proj", half)):
            shape = (experts, half, columns)
            part = Part(key, info, shape, info.dtype, None, experts, fused, first, half)
            yield f"{stem}{name}.weight", part
    elif key.endswith("experts.down_proj"):
        yield f"{stem}down_proj.weight", whole
    else:
        yield key, whole


def quantization_section(found: list[Part], default: QuantSpec | None) -> dict[str, object]:
    """What config.json says of the storage: the default, and every matrix that differs from it."""
    specs = {part.path: part.spec for part in found if _is_matrix(part.name, part)}
    used = [spec for spec in specs.values() if spec is not None]
    if not used:
        return {}
    common = default if default in used else max(used, key=used.count)
    others: Mapping[str, object] = {
        path: False if spec is None else asdict(spec)
        for path, spec in specs.items()
        if spec != common
    }
    return {**asdict(common), **others}
