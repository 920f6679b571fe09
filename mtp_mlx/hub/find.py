"""From a model's name to its folder on this machine, and from a target to its drafter.

Nothing is downloaded: what is not here is an error that ends with the command that fetches it. A
name is, in this order: a built-in model, a short name, a folder, an org/name. Folders of
MTP_MLX_MODEL_PATHS come before the hub's cache.

A drafter that nobody named is looked for beside the target, then by the table of short names, then
by the target's name and `-assistant`, then by its layout among all drafters that are here.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mtp_mlx.checkpoint import CONFIG, check_tokenizers, find_drafter, find_folder
from mtp_mlx.config import DRAFTER_TYPES, TargetConfig, read_drafter, read_target
from mtp_mlx.embedded import FOLDERS, name_of
from mtp_mlx.errors import CheckpointError, ModelNotFound
from mtp_mlx.fields import shown, shown_name
from mtp_mlx.files import read_json
from mtp_mlx.hub.cache import (
    Repo,
    cache_folder,
    find_repo,
    is_offline,
    local_models,
    repo_of,
    repos,
)
from mtp_mlx.hub.names import Alias, alias_for, aliases, repo_ids
from mtp_mlx.pair_names import DRAFTER_SUFFIX, unconverted

PULL = "mtp-mlx pull"


@dataclass(frozen=True)
class Found:
    """A drafter's folder; `note` is what a user should know of how it was found."""

    folder: Path
    note: str | None


def find_model(model: str | Path, remedy: str | None = None) -> Path:
    """The folder of a model that is named or pointed to. Raises ModelNotFound.

    remedy: what to say in place of the usual advice, where `model` is no name of the hub's.
    """
    ids = repo_ids(model) if isinstance(model, str) and model not in FOLDERS else ()
    is_short = bool(ids) and model not in ids
    if not ids or (not is_short and _is_folder(model)):
        return find_folder(model) if remedy is None else find_folder(model, remedy)
    found = next(iter(_here(ids)), None)
    if found is None:
        raise _not_here(str(model), ids)
    return found


def pair_here(name: str, revision: str | None, wants_drafter: bool) -> list[Path]:
    """The folders of a target of the hub, and of its drafter where that is wanted.

    revision: the branch, tag or commit that the target must be. Raises ModelNotFound with what is
    not here; asks no network.
    """
    ids = repo_ids(name)
    if not ids:
        raise ModelNotFound(f"{shown_name(name)}: no short name and no org/name of the hub")
    target = find_model(name) if revision is None else _at_revision(name, ids, revision)
    if not wants_drafter or DRAFTER_SUFFIX in ids[0].casefold():
        return [target]
    drafter = drafter_of(target)
    if drafter is None:
        raise ModelNotFound(
            f"{name}: its drafter is not in the cache, and the network is off; give --no-draft, or "
            f"unset HF_HUB_OFFLINE, then {PULL} {name}"
        )
    return [target, drafter.folder]


def is_here(name: str, revision: str | None, wants_drafter: bool) -> bool:
    """Would `pair_here` find all?"""
    with suppress(ModelNotFound):
        pair_here(name, revision, wants_drafter)
        return True
    return False


def drafter_of(target: Path) -> Found | None:
    """The drafter of the target in `target`, or None where none is here."""
    beside = find_drafter(target)
    if beside is not None:
        return Found(beside, None)
    name = title(target)
    alias = alias_for(name) or _named_like(name)
    known = _here(alias.drafters) if alias is not None else iter(())
    found = next(known, None) or _by_name(name)
    return _by_layout(target) if found is None else Found(found, None)


def title(folder: Path) -> str:
    """What a user calls the model in a folder: org/name in a hub cache, a built-in name, a path."""
    snapshot = repo_of(folder)
    return name_of(folder) if snapshot is None else snapshot.repo_id


def short_name(folder: Path) -> str | None:
    """What `mtp-mlx pull` takes to fetch this model again with its drafter; None for a path."""
    snapshot = repo_of(folder)
    if snapshot is None:
        return None
    alias = alias_for(snapshot.repo_id)
    return snapshot.repo_id if alias is None else alias.name


def names_here() -> list[str]:
    """Names of all models on this machine that a user may give, for completion: no built-in one."""
    local = [name for name, _ in local_models()]
    cached = [repo.repo_id for repo in repos() if repo.usable() is not None]
    folded = {name.casefold() for name in (*local, *cached)}
    short = [alias.name for alias in aliases() if alias.target.casefold() in folded]
    return [*short, *sorted({*local, *cached})]


def _is_folder(model: str | Path) -> bool:
    with suppress(OSError, RuntimeError):
        return Path(model).expanduser().is_dir()
    return False


def _here(ids: Iterable[str]) -> Iterator[Path]:
    """The folders of these repositories, in their order, as far as they are here and whole."""
    local = list(local_models())
    for repo_id in ids:
        names = {repo_id.casefold(), repo_id.rpartition("/")[2].casefold()}
        yield from (folder for name, folder in local if name.casefold() in names)
        repo = find_repo(repo_id)
        snapshot = None if repo is None else repo.usable()
        if snapshot is not None:
            yield snapshot.folder


def _at_revision(name: str, ids: tuple[str, ...], revision: str) -> Path:
    """The folder of a target at a branch, tag or commit that the cache knows."""
    for repo in filter(None, map(find_repo, ids)):
        snapshot = repo.at(revision)
        if snapshot is not None:
            return snapshot.folder
    raise ModelNotFound(
        f"{name}: revision {shown(revision)} is not in the cache, and the network is off; unset "
        f"HF_HUB_OFFLINE, then {PULL} {name} --revision {shown_name(revision)}"
    )


def _not_here(name: str, ids: tuple[str, ...]) -> ModelNotFound:
    meant = "no such folder, and " if ids[0] == name else f"{ids[0]} is "
    why = _fault(ids) or f"{meant}not in the cache at {cache_folder()}"
    offline = "; HF_HUB_OFFLINE is set, unset it to fetch the model" if is_offline() else ""
    return ModelNotFound(f"{name}: {why}{offline}; fetch it: {PULL} {name}")


def _fault(ids: tuple[str, ...]) -> str | None:
    """What is wrong with the copies that are here, if there are any."""
    for repo in filter(None, map(find_repo, ids)):
        for snapshot in repo.snapshots():
            fault = snapshot.fault()
            if fault is not None:
                return f"the copy in the cache is of no use: {fault}"
    return None


def _named_like(name: str) -> Alias | None:
    """The pair whose target has the name of this folder, whoever published it."""
    last = os.path.basename(name).casefold()
    return next((a for a in aliases() if a.target.casefold().endswith(f"/{last}")), None)


def _by_name(name: str) -> Path | None:
    """A drafter whose name is the target's and `-assistant`, of the same publisher if it can be."""
    owner, _, last = name.rpartition("/")
    for base in dict.fromkeys((last, unconverted(last))):
        start = f"{base}{DRAFTER_SUFFIX}".casefold()
        fits = [
            (one.rpartition("/")[0] != owner, len(one), one, folder)
            for one, folder in _all_here()
            if one.rpartition("/")[2].casefold().startswith(start)
        ]
        if fits:
            return min(fits)[3]
    return None


def _by_layout(target: Path) -> Found | None:
    """A drafter that was made for a target of this width, heads and windows."""
    drafters = [(name, folder) for name, folder in _all_here() if _is_drafter(folder)]
    if not drafters:
        return None
    try:
        config = read_target(read_json(target / CONFIG), str(target / CONFIG))
    except CheckpointError:  # said in full where the target is opened
        return None
    for name, folder in sorted(drafters):
        if _fits(folder, target, config):
            width = f"made for a target of width {config.hidden_size}"
            return Found(folder, f"drafter {name}, found by its layout ({width})")
    return None


def _fits(drafter: Path, target: Path, config: TargetConfig) -> bool:
    with suppress(CheckpointError):
        read_drafter(read_json(drafter / CONFIG), str(drafter)).paired_with(config)
        check_tokenizers(target, drafter)
        return True
    return False


def _is_drafter(folder: Path) -> bool:
    with suppress(CheckpointError):
        return read_json(folder / CONFIG).get("model_type") in DRAFTER_TYPES
    return False


def _all_here() -> Iterator[tuple[str, Path]]:
    """Name and folder of every checkpoint here but the built-in ones."""
    yield from local_models()
    for repo in repos():
        snapshot = _usable(repo)
        if snapshot is not None:
            yield repo.repo_id, snapshot


def _usable(repo: Repo) -> Path | None:
    snapshot = repo.usable()
    return None if snapshot is None else snapshot.folder
