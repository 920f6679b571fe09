"""What a server serves: one loaded pair, its names, and what it promises."""

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mtp_mlx import __version__, proof_file
from mtp_mlx.api import LLM
from mtp_mlx.backends import Pair, open_pair
from mtp_mlx.calibration_file import cache_folder
from mtp_mlx.errors import MtpError
from mtp_mlx.fields import shown_name
from mtp_mlx.hub.cache import repo_of
from mtp_mlx.hub.find import short_name, title
from mtp_mlx.server.errors import Refused
from mtp_mlx.server.limits import Limits
from mtp_mlx.verdict import Level

OWNER = "mtp-mlx"
DEFAULT_NAMES = ("default", "default_model")
NO_DRAFTER = "none"


@dataclass(frozen=True, kw_only=True)
class Served:
    """`id` is the name in every reply, `names` are those that requests may use too; none of them
    tells where files lie. `exactness`: what `mtp-mlx verify` last showed on this machine for this
    pair, A where nothing is known, None where it found a fault. `fingerprint` changes with what may
    change a seeded reply. `sampling`: options that hold where a request says nothing of them.
    """

    llm: LLM
    id: str
    names: tuple[str, ...]
    created: int
    draft_model: str | None
    draft_names: tuple[str, ...]
    context_length: int
    slots: int
    exactness: Level | None
    fingerprint: str
    limits: Limits
    accept_any_model: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(
        llm: LLM,
        *,
        names: Sequence[str] = (),
        limits: Limits | None = None,
        accept_any_model: bool = False,
        sampling: Mapping[str, Any] | None = None,
    ) -> "Served":
        """`names`: what the user calls the model, the first one in replies."""
        own = _names(llm.pair.target)
        drafter = llm.pair.drafter if llm.has_drafter else None
        drafters = () if drafter is None else _names(drafter)
        all_names = tuple(dict.fromkeys((*names, *own)))
        return Served(
            llm=llm,
            id=all_names[0],
            names=all_names,
            created=int(time.time()),
            draft_model=drafters[0] if drafters else None,
            draft_names=drafters,
            context_length=llm.config.max_positions,
            slots=llm.stats().slots,
            exactness=shown_level(llm.pair, llm.dtype),
            fingerprint=_fingerprint(all_names[0], drafters[:1]),
            limits=Limits() if limits is None else limits,
            accept_any_model=accept_any_model,
            sampling={} if sampling is None else sampling,
        )

    def check_name(self, name: str | None) -> None:
        """Raises Refused for a model that is not served. Nothing is ever downloaded."""
        known = {each.casefold() for each in (*self.names, *DEFAULT_NAMES)}
        if name is None or self.accept_any_model or name.casefold() in known:
            return
        served = ", ".join(shown_name(each) for each in self.names)
        raise Refused(
            404,
            "model_not_found",
            f"the model {shown_name(name)} is not served here; served: {served}",
            param="model",
        )

    def model(self) -> dict[str, Any]:
        """The model as GET /v1/models/{id} shows it."""
        return {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": OWNER,
            "context_length": self.context_length,
            "max_model_len": self.context_length,
            "draft_model": self.draft_model,
        }

    def models(self) -> dict[str, Any]:
        """GET /v1/models"""
        return {"object": "list", "data": [self.model()]}


def _names(folder: Path) -> tuple[str, ...]:
    """What users call the checkpoint in a folder, the fullest name first."""
    full = title(folder) if repo_of(folder) is not None else folder.resolve().name
    short = short_name(folder)
    found = (full, full.rpartition("/")[2], *(() if short is None else (short,)))
    return tuple(dict.fromkeys(found))


def shown_level(pair: Pair, dtype: str | None) -> Level | None:
    """The level that `mtp-mlx verify` last showed here for a pair, see Served.exactness."""
    from mtp_mlx.engine.calibrated import key_of
    from mtp_mlx.model.load import compute_dtype

    try:
        opened = open_pair(pair)
        compute = compute_dtype(opened.target.config, opened.target.tensors.values(), dtype)
        kept = proof_file.last(cache_folder(), key_of((opened.target, opened.drafter), compute))
    except (OSError, MtpError):  # files that cannot be read any more: nothing is known
        return "A"
    if kept is None:
        return "A"
    return None if kept.has_fault else kept.level or "A"


def _fingerprint(name: str, drafters: tuple[str, ...]) -> str:
    """Of the model, the programs and the machine."""
    try:
        mlx = version("mlx")
    except PackageNotFoundError:
        mlx = "none"
    parts = (name, *drafters, __version__, mlx, platform.system(), platform.machine())
    return f"fp_{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"
