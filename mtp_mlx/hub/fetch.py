"""Pulling a pair: plan, fetch, verify, write down.

The small files come first, so that a pair that cannot run is refused before its weights are
fetched. Each file is compared with the hub's size and digest; only when all are right does the
record say so (`record.py`), and only then does `refs/REVISION` name the commit. Until then nothing
takes the folder for a model.
"""

import errno
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mtp_mlx.config import read_drafter, read_target
from mtp_mlx.errors import ModelNotFound, RequestError, UnsupportedModel
from mtp_mlx.fields import shown, shown_name
from mtp_mlx.files import read_json
from mtp_mlx.hub.cache import CONFIG, cache_folder, repo_folder
from mtp_mlx.hub.client import (
    Listing,
    NoSuchRepo,
    endpoint,
    explained,
    fetch_file,
    hub_faults,
    list_repo,
    told,
)
from mtp_mlx.hub.names import alias_for, alias_of, repo_ids
from mtp_mlx.hub.record import (
    FileRecord,
    Record,
    mark_unfinished,
    missing_files,
    record_of,
    write_record,
)
from mtp_mlx.pair_names import DRAFTER_SUFFIX
from mtp_mlx.whole_file import write_whole

MAIN = "main"
WORKERS = 4  # files on their way at once
BLOCK_BYTES = 1 << 20
WEIGHTS = ".safetensors"
NO_WRITES = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


NAMES_HELP = (
    "give a short name (e2b e4b 12b 26b 31b, also e4b-4bit) or org/name; tiny and tiny-moe are "
    "built in"
)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}")


class Stopped(Exception):
    """Another file of the same pull has failed, so this one is not needed."""


@dataclass(frozen=True)
class Part:
    """One repository of a pull: what the hub lists, and which of its files are not here."""

    listing: Listing
    folder: Path
    missing: tuple[FileRecord, ...]
    is_verified: bool

    @property
    def snapshot(self) -> Path:
        return self.folder / "snapshots" / self.listing.commit

    @property
    def missing_bytes(self) -> int:
        return sum(file.size for file in self.missing)

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.listing.files)


@dataclass(frozen=True)
class Plan:
    """What a pull will fetch; `note` says in one line why there is no drafter."""

    name: str
    cache: Path
    target: Part
    drafter: Part | None
    note: str | None

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.target,) if self.drafter is None else (self.target, self.drafter)

    @property
    def missing_bytes(self) -> int:
        return sum(part.missing_bytes for part in self.parts)


@dataclass
class Progress:
    """Told what arrives. `stop`: some file has failed."""

    say: Callable[[str], None]
    arrived: Callable[[float], None]
    stop: threading.Event

    def count(self, number: float) -> None:
        """Note bytes that have arrived; raises Stopped where they are of no more use."""
        if self.stop.is_set():
            raise Stopped
        self.arrived(number)


def plan_pull(name: str, revision: str | None, with_drafter: bool) -> Plan:
    """Ask the hub what `name` and its drafter hold. Raises ModelNotFound; writes nothing."""
    cache = cache_folder()
    if cache is None:
        raise ModelNotFound("this user has no home folder; set HF_HOME to where models may lie")
    ids = repo_ids(name)
    if not ids:
        raise ModelNotFound(f"{shown_name(name)}: no name of a model on the hub; {NAMES_HELP}")
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise RequestError(f"revision {shown(revision)} is none that git has", param="revision")
    target = _part(cache, list_repo(ids[0], revision or MAIN, _again(name)))
    if not with_drafter or DRAFTER_SUFFIX in target.listing.repo_id.casefold():
        return Plan(name, cache, target, None, None)
    candidates = _drafters(name, target.listing.repo_id)
    for repo_id in candidates:
        with suppress(NoSuchRepo):
            drafter = _part(cache, list_repo(repo_id, MAIN, _again(name)))
            return Plan(name, cache, target, drafter, None)
    note = f"the hub has no drafter named {' or '.join(candidates)}; decoding will be plain"
    return Plan(name, cache, target, None, note)


def carry_out(plan: Plan, progress: Progress) -> list[Record]:
    """Fetch and verify what is planned; the records. Raises ModelNotFound, CheckpointError (a model
    that cannot run here), OSError (a disk that is full or may not be written)."""
    _check_space(plan)
    try:
        with told(progress.say):
            for part in plan.parts:
                if not part.is_verified:
                    mark_unfinished(part.folder, part.listing.commit)
                    _sweep(plan.cache, part)
                _fetch(plan, part, [one for one in part.missing if not _is_weight(one)], progress)
            _check_configs(plan)
            for part in plan.parts:
                _fetch(plan, part, [one for one in part.missing if _is_weight(one)], progress)
                if not part.is_verified:
                    _verify_old(plan, part, progress)
        return [_keep(part) for part in plan.parts]
    except OSError as error:
        raise _disk_fault(error, plan) from error


def _again(name: str) -> str:
    return f"mtp-mlx pull {name}"


def _drafters(name: str, repo_id: str) -> tuple[str, ...]:
    """Where the drafter of a target may lie: the table of short names, else the target's name."""
    alias = alias_of(name) or alias_for(repo_id)
    return (f"{repo_id}{DRAFTER_SUFFIX}",) if alias is None else alias.drafters


def _part(cache: Path, listing: Listing) -> Part:
    names = [file.name for file in listing.files]
    if CONFIG not in names or not any(name.endswith(WEIGHTS) for name in names):
        raise UnsupportedModel(
            f"{listing.repo_id}: the repository holds no {CONFIG} with *{WEIGHTS}, and nothing "
            "else is read"
        )
    folder = repo_folder(cache, listing.repo_id)
    snapshot = folder / "snapshots" / listing.commit
    lacking = set(missing_files(snapshot, [(file.name, file.size) for file in listing.files]))
    missing = tuple(file for file in listing.files if file.name in lacking)
    record = record_of(folder, listing.commit)
    is_verified = not missing and record is not None and record.files == listing.files
    return Part(listing, folder, missing, is_verified)


def _is_weight(file: FileRecord) -> bool:
    return file.name.endswith(WEIGHTS)


def _check_space(plan: Plan) -> None:
    """Raise OSError where the files cannot all be stored."""
    place = plan.cache
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if plan.missing_bytes > free:
        raise OSError(_full(plan, free))


def _full(plan: Plan, free: int) -> str:
    return (
        f"the disk of {plan.cache} is too full: {plan.missing_bytes:,} bytes are needed, {free:,} "
        f"are free; make room or set HF_HOME to another disk, then {_again(plan.name)}"
    )


def _sweep(cache: Path, part: Part) -> None:
    """Remove what killed downloads of this repository have left: files that nobody writes, since
    whoever writes one holds its lock."""
    from filelock import FileLock, Timeout

    locks = cache / ".locks" / part.folder.name
    for path in (part.folder / "blobs").glob("*.incomplete"):
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{path.name.split('.')[0]}.lock", mode=0o664)
        with suppress(Timeout), lock.acquire(timeout=0):
            path.unlink(missing_ok=True)


def _fetch(plan: Plan, part: Part, files: list[FileRecord], progress: Progress) -> None:
    """Fetch and verify files of one repository, several at once; the first fault ends all."""
    if not files:
        return
    progress.say(f"{part.listing.repo_id}")
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        tasks = [pool.submit(_fetch_one, plan, part, file, progress) for file in files]
        faults = [fault for fault in (task.exception() for task in tasks) if fault is not None]
    for fault in faults:
        if not isinstance(fault, Stopped):
            raise fault


def _fetch_one(plan: Plan, part: Part, file: FileRecord, progress: Progress) -> None:
    if progress.stop.is_set():
        raise Stopped
    try:
        place = fetch_file(part.listing, file, plan.cache, progress.count)
        if _is_weight(file):
            progress.say(f"checking {file.name} of {part.listing.repo_id}")
        _verify(plan, part, file, place)
    except hub_faults() as error:
        progress.stop.set()
        if isinstance(error, OSError) and error.errno in (*NO_SPACE, *NO_WRITES):
            raise
        repo_id, revision = part.listing.repo_id, part.listing.revision
        raise explained(error, repo_id, revision, _again(plan.name), file.name) from error
    except ModelNotFound:
        progress.stop.set()
        raise


def _verify(plan: Plan, part: Part, file: FileRecord, place: Path) -> None:
    """Raise ModelNotFound, and drop the file, where its bytes are not the hub's."""
    if digest_of(place, file.digest) == file.digest:
        return
    _drop(place, plan.cache.resolve())
    raise ModelNotFound(
        f"{part.listing.repo_id}: {file.name} came damaged: its digest is not the one that the hub "
        f"tells ({file.digest[:19]}...); it was removed; {_again(plan.name)}"
    )


def _drop(path: Path, cache: Path) -> None:
    """Remove a file, and all that it links to inside the cache, what repositories share too: the
    library would link to the damaged bytes again."""
    target = path.parent.resolve() / path.readlink() if path.is_symlink() else None
    path.unlink(missing_ok=True)
    if target is not None and target.parent.resolve().is_relative_to(cache):
        _drop(target, cache)


def _verify_old(plan: Plan, part: Part, progress: Progress) -> None:
    """Verify what was in the cache before, fetched by another program or by a pull that ended
    early; what is damaged is fetched again."""
    new = {file.name for file in part.missing}
    for file in part.listing.files:
        if file.name in new:
            continue
        progress.say(f"checking {file.name} of {part.listing.repo_id}")
        try:
            _verify(plan, part, file, part.snapshot / file.name)
        except ModelNotFound:
            _fetch(plan, part, [file], progress)


def digest_of(path: Path, kind: str) -> str:
    """The digest of a file, sha256 or git's of a blob, as `kind` begins. Raises OSError."""
    is_git = kind.startswith("git:")
    digest = hashlib.sha1(usedforsecurity=False) if is_git else hashlib.sha256()
    if is_git:
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return f"{'git' if is_git else 'sha256'}:{digest.hexdigest()}"


def _check_configs(plan: Plan) -> None:
    """Refuse, before any weights come, what this program cannot run and pairs that do not fit.

    Raises CheckpointError, with both numbers where two differ.
    """
    values = read_json(plan.target.snapshot / CONFIG)
    if DRAFTER_SUFFIX.replace("-", "_") in str(values.get("model_type")):
        read_drafter(values, plan.target.listing.repo_id)
        return
    config = read_target(values, plan.target.listing.repo_id)
    if plan.drafter is not None:
        found = read_json(plan.drafter.snapshot / CONFIG)
        read_drafter(found, plan.drafter.listing.repo_id).paired_with(config)


def _keep(part: Part) -> Record:
    """Write down that a part is whole, and let its revision name it."""
    listing = part.listing
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    record = Record(
        repo_id=listing.repo_id,
        revision=listing.revision,
        commit=listing.commit,
        endpoint=endpoint(),
        pulled_at=now,
        licence=listing.licence,
        files=listing.files,
    )
    if listing.revision != listing.commit:
        write_whole(part.folder / "refs" / listing.revision, listing.commit)
    write_record(part.folder, record)
    return record


def _disk_fault(error: OSError, plan: Plan) -> OSError:
    """A fault of the disk in our words, if it is one."""
    if error.errno in NO_SPACE:
        return OSError(_full(plan, shutil.disk_usage(plan.cache).free))
    if error.errno in NO_WRITES:
        name = error.filename or plan.cache
        reason = os.strerror(error.errno or errno.EACCES)
        return OSError(
            f"{name} cannot be written ({reason}); set HF_HOME to a folder that can, then "
            f"{_again(plan.name)}"
        )
    return error
