"""Names of models: the short ones of `aliases.toml`, and what a repository may be called."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mtp_mlx.pair_names import DRAFTER_SUFFIX, spelled

TABLE = Path(__file__).resolve().parent / "aliases.toml"
_REPO_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPO_ID = re.compile(f"{_REPO_PART}/{_REPO_PART}")


@dataclass(frozen=True)
class Alias:
    """A short name, the target it stands for, and that target's drafters, the first one first."""

    name: str
    target: str
    drafters: tuple[str, ...]


@cache
def aliases() -> tuple[Alias, ...]:
    """All short names, smallest model first, each size's own name before those with a suffix."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    found = []
    for size, entry in table["size"].items():
        drafters = tuple(entry["drafters"])
        found.append(Alias(size, entry["original"], drafters))
        for suffix in table["suffixes"]:
            target = entry["converted"].format(suffix=suffix)
            found.append(Alias(f"{size}-{suffix}", target, drafters))
    return tuple(found)


def alias_of(name: str) -> Alias | None:
    """The pair that a short name stands for, however it is spelled; no repository ids."""
    wanted = "-".join(filter(None, spelled(name) or ()))
    return next((alias for alias in aliases() if alias.name == wanted), None)


def alias_for(repo_id: str) -> Alias | None:
    """The pair whose target is this repository, whatever the case of its letters."""
    folded = repo_id.casefold()
    return next((alias for alias in aliases() if alias.target.casefold() == folded), None)


def repo_ids(name: str) -> tuple[str, ...]:
    """The repositories that a name may mean, the likeliest first; none for what is no name.

    e4b-assistant means the drafters of e4b.
    """
    alias = alias_of(name)
    if alias is not None:
        return (alias.target,)
    pair = alias_of(name.lower().removesuffix(DRAFTER_SUFFIX))
    if pair is not None:
        return pair.drafters
    return (name,) if is_repo_id(name) else ()


def is_repo_id(text: str) -> bool:
    """Is this an org/name that the hub could have?"""
    return _REPO_ID.fullmatch(text) is not None and "--" not in text and ".." not in text
