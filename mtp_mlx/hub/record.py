"""What `mtp-mlx pull` writes down beside a repository's files in the cache.

`.mtp-mlx/COMMIT.json` says that every file of that commit is here and has the hub's size and
digest. `.mtp-mlx/pinned` names the commit that was pulled last, which is the one that the model's
name means here. `.mtp-mlx/COMMIT.unfinished` says that a pull has begun and not ended, so that what
a killed one leaves is never taken for a model.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mtp_mlx.errors import CheckpointError
from mtp_mlx.fields import Fields
from mtp_mlx.files import read_json
from mtp_mlx.whole_file import write_whole

FOLDER = ".mtp-mlx"
PINNED = "pinned"
UNFINISHED = ".unfinished"
SCHEMA = 1
MOST_BYTES = 1 << 50


@dataclass(frozen=True)
class FileRecord:
    """A file of the hub: its size and digest, `sha256:` or, of small files, `git:`."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Record:
    """A verified pull. `revision` is what was asked for, `commit` what that was at `pulled_at`."""

    repo_id: str
    revision: str
    commit: str
    endpoint: str
    pulled_at: str
    licence: str | None
    files: tuple[FileRecord, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def record_of(repo: Path, commit: str) -> Record | None:
    """The record of a commit in a repository's folder; a damaged one is none."""
    path = repo / FOLDER / f"{commit}.json"
    with suppress(CheckpointError):
        return _parse(Fields(read_json(path), path.name))
    return None


def pinned(repo: Path) -> str | None:
    """The commit that was pulled last."""
    with suppress(OSError, UnicodeDecodeError):
        return (repo / FOLDER / PINNED).read_text(encoding="utf-8")
    return None


def write_record(repo: Path, record: Record) -> None:
    """Keep a record, pin its commit and drop the mark of the pull. Raises OSError."""
    body = {"schema": SCHEMA, **asdict(record)}
    write_whole(repo / FOLDER / f"{record.commit}.json", json.dumps(body, indent=1))
    write_whole(repo / FOLDER / PINNED, record.commit)
    _mark(repo, record.commit).unlink(missing_ok=True)


def mark_unfinished(repo: Path, commit: str) -> None:
    """Say that a pull of this commit has begun. Raises OSError."""
    path = _mark(repo, commit)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def is_unfinished(repo: Path, commit: str) -> bool:
    """Has a pull of this commit begun, and none ended?"""
    return _mark(repo, commit).exists() and record_of(repo, commit) is None


def unfinished(repo: Path) -> list[str]:
    """The commits of which a pull has begun and none ended."""
    marks = sorted((repo / FOLDER).glob(f"*{UNFINISHED}"))
    commits = [path.name.removesuffix(UNFINISHED) for path in marks]
    return [commit for commit in commits if is_unfinished(repo, commit)]


def missing_files(folder: Path, files: Iterable[tuple[str, int]]) -> list[str]:
    """The names of files, given with their sizes, that `folder` lacks or has in another size."""
    missing = []
    for name, size in files:
        try:
            found = (folder / name).stat().st_size
        except OSError:
            found = -1
        if found != size:
            missing.append(name)
    return missing


def _mark(repo: Path, commit: str) -> Path:
    return repo / FOLDER / f"{commit}{UNFINISHED}"


def _parse(fields: Fields) -> Record:
    entries = fields.get("files")
    if fields.get("schema") != SCHEMA or not isinstance(entries, list):
        raise fields.fail("schema", str(SCHEMA), fields.values.get("schema"))
    files = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise fields.fail("files", "a list of objects", entry)
        own = Fields(entry, fields.source, "files")
        size = own.integer("size", 0, MOST_BYTES)
        files.append(FileRecord(own.text("name"), size, own.text("digest")))
    return Record(
        repo_id=fields.text("repo_id"),
        revision=fields.text("revision"),
        commit=fields.text("commit"),
        endpoint=fields.text("endpoint"),
        pulled_at=fields.text("pulled_at"),
        licence=fields.text("licence") if fields.has("licence") else None,
        files=tuple(files),
    )
