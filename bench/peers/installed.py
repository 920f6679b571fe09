"""What a package and all that it requires takes on disk: run by the interpreter of its environment.

    python bench/peers/installed.py mlx-lm 'mlx[cpu]'

Prints one JSON line. Files are counted as they were unpacked, without compiled bytecode; of an
editable package, its own source tree.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(roots: Iterable[str]) -> dict[str, Distribution]:
    """All distributions that these requirements bring here, by name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        for extra in ("", *asked.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            found[name] = distribution(name)
            needs = [Requirement(line) for line in found[name].requires or ()]
            waiting += [each for each in needs if _applies(each, extra)]
    return found


def _applies(need: Requirement, extra: str) -> bool:
    return need.marker is None or need.marker.evaluate({"extra": extra})


def size(package: Distribution) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for path in _files(package) if path.suffix != ".pyc")


def _files(package: Distribution) -> Iterator[Path]:
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        top = (package.read_text("top_level.txt") or "").split()
        for name in top:
            folder = Path(origin["url"].removeprefix("file://")) / name
            yield from (path for path in folder.rglob("*") if path.is_file())
        return
    for file in package.files or ():
        path = Path(str(file.locate()))
        if path.is_file():
            yield path


def about(roots: Iterable[str]) -> dict[str, Any]:
    """Count and bytes of the closure, and bytes of what is MLX itself of it."""
    sizes = {name: size(package) for name, package in closure(roots).items()}
    core = sum(sizes.get(name, 0) for name in ("mlx", "mlx-cpu", "mlx-metal"))
    return {"distributions": len(sizes), "bytes": sum(sizes.values()), "mlx_bytes": core}


if __name__ == "__main__":
    print(json.dumps(about(sys.argv[1:])))
