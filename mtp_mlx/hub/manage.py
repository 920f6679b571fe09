"""What lies on this machine, and taking it away again."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mtp_mlx.config import DRAFTER_TYPES, TARGET_TYPES
from mtp_mlx.errors import CheckpointError, ModelNotFound, RequestError
from mtp_mlx.files import read_json
from mtp_mlx.hub.cache import (
    CONFIG,
    Repo,
    cache_folder,
    find_repo,
    local_models,
    repos,
)
from mtp_mlx.hub.client import prepare
from mtp_mlx.hub.names import alias_for, repo_ids
from mtp_mlx.hub.record import record_of, unfinished

KINDS = {
    **dict.fromkeys(TARGET_TYPES, "target"),
    **dict.fromkeys(DRAFTER_TYPES, "drafter"),
}
OTHER = "other"


@dataclass(frozen=True)
class Entry:
    """A model here. kind: target, drafter, other; alias: its short name; fault: why it is of no
    use; size: bytes on the disk; is_partial: a pull of it began and none ended."""

    name: str
    alias: str | None
    kind: str
    folder: Path
    commit: str | None
    pulled_at: str | None
    size: int
    fault: str | None
    is_partial: bool = False


def entries() -> list[Entry]:
    """All models of MTP_MLX_MODEL_PATHS and of the cache, other programs' too."""
    local = [
        Entry(name, None, kind_of(folder), folder, None, None, folder_bytes(folder), None)
        for name, folder in local_models()
    ]
    return [*local, *(entry_of(repo) for repo in repos())]


def entry_of(repo: Repo) -> Entry:
    """What the cache holds of a repository."""
    snapshot = repo.usable() or next(iter(repo.snapshots()), None)
    alias = alias_for(repo.repo_id)
    short = None if alias is None else alias.name
    size = folder_bytes(repo.folder)
    if snapshot is None:
        is_partial = bool(unfinished(repo.folder))
        fault = "its download was not finished" if is_partial else "it holds no files"
        return Entry(repo.repo_id, short, OTHER, repo.folder, None, None, size, fault, is_partial)
    record = record_of(repo.folder, snapshot.commit)
    return Entry(
        name=repo.repo_id,
        alias=short,
        kind=kind_of(snapshot.folder),
        folder=snapshot.folder,
        commit=snapshot.commit,
        pulled_at=None if record is None else record.pulled_at,
        size=size,
        fault=snapshot.fault(),
        is_partial=bool(unfinished(repo.folder)),
    )


def kind_of(folder: Path) -> str:
    """target, drafter, or other: a model that this program does not run."""
    with suppress(CheckpointError):
        return KINDS.get(str(read_json(folder / CONFIG).get("model_type")), OTHER)
    return OTHER


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder, each once, whatever links lead to it."""
    found = {}
    for path in _below(folder):
        with suppress(OSError):
            stat = path.stat()
            found[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(found.values())


def find_removable(name: str) -> Repo:
    """The cache's repository of that name. Raises ModelNotFound, RequestError for what is not the
    cache's."""
    for repo_id in repo_ids(name):
        repo = find_repo(repo_id)
        if repo is not None:
            return repo
    if not repo_ids(name):
        raise RequestError(
            f"{name[:80]}: only models of the hub's cache are removed, by short name or org/name; "
            "mtp-mlx ls --all lists them",
            param="model",
        )
    raise ModelNotFound(f"{name}: not in the cache at {cache_folder()}; mtp-mlx ls --all")


def remove(repo: Repo) -> int:
    """Delete a repository from the cache; the bytes it had. Raises OSError, ModelNotFound for a
    HF_ENDPOINT that the library cannot read.

    The library goes first: it alone knows the files that repositories share. It leaves alone what
    it does not understand, such as a download that never came to its first file.
    """
    prepare()
    from huggingface_hub import scan_cache_dir

    size = folder_bytes(repo.folder)
    cache = repo.folder.parent
    with suppress(ValueError):  # its scan ends at a reference that is no text, whosever it is
        known = scan_cache_dir(cache)
        own = [one for one in known.repos if one.repo_path.name == repo.folder.name]
        commits = [revision.commit_hash for one in own for revision in one.revisions]
        if commits:
            replace(known, repos=frozenset(own)).delete_revisions(*commits).execute()
    for folder in (repo.folder, cache / ".locks" / repo.folder.name):
        if folder.exists():
            shutil.rmtree(folder)
    return size


def _below(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from (path for path in folder.rglob("*") if path.is_file())
