"""Models on this machine: the Hugging Face cache, and the folders of MTP_MLX_MODEL_PATHS.

Nothing here reaches the network or imports the hub's library, so that loading and the shell's
completion stay quick. The cache is where that library puts it; a test compares the two.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mtp_mlx.errors import CheckpointError
from mtp_mlx.files import read_json
from mtp_mlx.hub.names import is_repo_id
from mtp_mlx.hub.record import is_unfinished, missing_files, pinned, record_of
from mtp_mlx.validate import checkpoint_files

MODEL_PATHS = "MTP_MLX_MODEL_PATHS"
CONFIG = "config.json"
PREFIX = "models--"
WANTED = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model")
TRUE = ("1", "ON", "YES", "TRUE")  # as the hub's library reads its variables


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository in the cache."""

    repo_id: str
    commit: str
    folder: Path

    @property
    def repo(self) -> Path:
        return self.folder.parent.parent

    def fault(self) -> str | None:
        """Why this is no whole checkpoint, or None. Looks at names and sizes, reads no weights."""
        if is_unfinished(self.repo, self.commit):
            return "its download was not finished"
        missing = missing_files(self.folder, self._expected())
        if missing:
            return f"{missing[0]} is missing or has another size than on the hub"
        if not (self.folder / CONFIG).is_file():
            return f"{CONFIG} is missing"
        try:
            checkpoint_files(self.folder)
        except (CheckpointError, OSError) as error:
            return str(error)
        return None

    def _expected(self) -> list[tuple[str, int]]:
        """Names and sizes of its files: our own record, else the hub library's, else unknown."""
        record = record_of(self.repo, self.commit)
        if record is not None:
            return [(file.name, file.size) for file in record.files]
        with suppress(CheckpointError, AttributeError, KeyError, TypeError, ValueError):
            listed = read_json(self.repo / "trees" / f"{self.commit}.json")["files"]
            return [(name, int(entry["size"])) for name, entry in listed.items() if wanted(name)]
        return []


@dataclass(frozen=True)
class Repo:
    """A repository's folder in the cache."""

    repo_id: str
    folder: Path

    def snapshots(self) -> list[Snapshot]:
        """Its commits: the one pulled last, then that of `main`, then the newest."""
        names = _subfolders(self.folder / "snapshots")
        order = [pinned(self.folder), *_ref(self.folder, "main"), *_newest(names)]
        commits = [one for one in dict.fromkeys(order) if one is not None and one in names]
        return [Snapshot(self.repo_id, commit, names[commit]) for commit in commits]

    def usable(self) -> Snapshot | None:
        """The commit that its name stands for here."""
        return next((found for found in self.snapshots() if found.fault() is None), None)

    def at(self, revision: str) -> Snapshot | None:
        """The commit of a branch or tag, or that commit itself, where it is here and whole."""
        commits = [revision, *_ref(self.folder, revision)]
        whole = [one for one in self.snapshots() if one.commit in commits and one.fault() is None]
        return next(iter(whole), None)


def cache_folder() -> Path | None:
    """The hub's cache, as HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME have it; None without a home."""
    own = os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE"))
    if own is None:
        home = os.environ.get("HF_HOME")
        if home is None:
            base = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))
            home = os.path.join(base, "huggingface")
        own = os.path.join(home, "hub")
    folder = os.path.expandvars(os.path.expanduser(own))
    return None if folder.startswith("~") else Path(folder)


def is_offline() -> bool:
    """Is the network forbidden by HF_HUB_OFFLINE?"""
    asked = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return asked.upper() in TRUE


def wanted(name: str) -> bool:
    """Is a file of a repository one that a checkpoint is read from? No subfolders, no code."""
    is_plain = name.isprintable() and not name.startswith(".") and not {"/", "\\"} & set(name)
    return is_plain and any(fnmatchcase(name, pattern) for pattern in WANTED)


def repo_folder(cache: Path, repo_id: str) -> Path:
    """Where the cache keeps a repository."""
    return cache / f"{PREFIX}{repo_id.replace('/', '--')}"


def repos() -> list[Repo]:
    """All repositories of models in the cache, by name."""
    cache = cache_folder()
    names = {} if cache is None else _subfolders(cache)
    found = []
    for name in sorted(names):
        repo_id = name.removeprefix(PREFIX).replace("--", "/")
        if name.startswith(PREFIX) and is_repo_id(repo_id):
            found.append(Repo(repo_id, names[name]))
    return found


def find_repo(repo_id: str) -> Repo | None:
    """The repository of that name in the cache, whatever the case of its letters."""
    folded = repo_id.casefold()
    same = [repo for repo in repos() if repo.repo_id.casefold() == folded]
    exact = [repo for repo in same if repo.repo_id == repo_id]
    return next(iter([*exact, *same]), None)


def local_models() -> Iterator[tuple[str, Path]]:
    """Name and folder of each checkpoint in the folders of MTP_MLX_MODEL_PATHS: such a folder
    itself, or NAME or ORG/NAME below it."""
    for text in filter(None, os.environ.get(MODEL_PATHS, "").split(os.pathsep)):
        root = Path(os.path.expanduser(text))
        if (root / CONFIG).is_file():
            yield root.name, root
            continue
        for name, folder in sorted(_subfolders(root).items()):
            if (folder / CONFIG).is_file():
                yield name, folder
                continue
            for inner, below in sorted(_subfolders(folder).items()):
                if (below / CONFIG).is_file():
                    yield f"{name}/{inner}", below


def repo_of(folder: Path) -> Snapshot | None:
    """The repository and commit that a folder is, where it lies in a hub cache."""
    real = folder.absolute()
    repo_id = real.parent.parent.name.removeprefix(PREFIX).replace("--", "/")
    is_cache = real.parent.name == "snapshots" and real.parent.parent.name.startswith(PREFIX)
    return Snapshot(repo_id, real.name, real) if is_cache and is_repo_id(repo_id) else None


def _subfolders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by name; none where it cannot be read."""
    with suppress(OSError):
        return {path.name: path for path in folder.iterdir() if path.is_dir()}
    return {}


def _ref(repo: Path, name: str) -> list[str]:
    """The commit of a branch, where the cache knows it."""
    with suppress(OSError, UnicodeDecodeError):
        return [(repo / "refs" / name).read_text(encoding="utf-8").strip()]
    return []


def _newest(names: dict[str, Path]) -> list[str]:
    """The names of folders, the one changed last first."""

    def age(name: str) -> float:
        with suppress(OSError):
            return names[name].stat().st_mtime
        return 0.0

    return sorted(names, key=lambda name: (-age(name), name))
