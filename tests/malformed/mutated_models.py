"""Loads mutated pairs, one after the other, and says what came of each: a process to be watched.

`python -m tests.malformed.mutated_models BASE SEED FIRST COUNT` copies the pair in BASE, and for
each case changes one of its files, loads the pair, and puts the file back. It prints a line of JSON
before and after each case. A reader outside the two model folders is noticed by an audit hook, and
by watching what is given to MLX.
"""

import copy
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

import mtp_mlx
from mtp_mlx.errors import MtpError

INDEX = "model.safetensors.index.json"
# Files that a case may change, and how often.
VICTIMS = (
    ("target", "model-00001-of-00002.safetensors", 5),
    ("target", INDEX, 4),
    ("target", "config.json", 5),
    ("target", "generation_config.json", 1),
    ("target", "tokenizer_config.json", 1),
    ("drafter", "model.safetensors", 3),
    ("drafter", "config.json", 3),
)
HOSTILE = (
    None, True, False, -1, 0, 1, 2, 3, 7, 64, 255, 256, 2**31 - 1, 2**31, 2**32 + 2, 2**63, 2**64,
    -(2**63), 0.5, 1e308, 1e-320, "", "x", "F32", "I32", "U32", "BF16", "F8_E4M3", "../x",
    "/etc/passwd", "a\nb", "\u0000", "é" * 300, "full_attention", "sliding_attention", [], [0],
    [-1, 2], {}, {"a": 1},
    [[[[[]]]]], [1] * 300, "gemma4_text", "gemma4_assistant", [2**31, 2**31], [0, 0], "NaN",
)  # fmt: skip
BYTES = b'{}[]",:0123456789-.eE truefalsn_\\\x00\xff/'
FINE, REFUSED, UNTYPED = "loaded", "refused", "untyped"


class Outside:
    """What was opened that is neither the program's nor the models' own."""

    def __init__(self, models: Path) -> None:
        roots = (sys.prefix, sys.base_prefix, Path(__file__).parents[2], *models.iterdir())
        self.roots = tuple(os.path.realpath(root) + os.sep for root in roots)
        self.known: set[str] = set()
        self.seen: list[str] = []
        sys.addaudithook(self.on_event)
        self.load, mx.load = mx.load, self.on_load

    def on_event(self, event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            self.check(os.fsdecode(arguments[0]))

    def on_load(self, path: str, **options: Any) -> Any:
        self.check(path)
        return self.load(path, **options)

    def check(self, path: str) -> None:
        real = os.path.realpath(path)
        if real not in self.known and not real.startswith(self.roots):
            self.seen.append(real)

    def take(self) -> list[str]:
        found, self.seen = self.seen, []
        return found


def main(base: str, seed: str, first: str, count: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        models, secret = Path(home) / "models", Path(home) / "secret"
        shutil.copytree(base, models)
        shutil.copytree(base, secret)
        outside = Outside(models)
        load(models)
        outside.known.update(outside.take())  # what every load reads: the machine's memory, say
        for case in range(int(first), int(first) + int(count)):
            say(begin=case)
            say(end=case, **answer(models, secret, f"{seed}/{case}", outside))


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def answer(models: Path, secret: Path, seed: str, outside: Outside) -> dict[str, object]:
    """Change one file, load, and put it back."""
    draw = random.Random(seed)
    role, name, _ = draw.choices(VICTIMS, [weight for _, _, weight in VICTIMS])[0]
    path = models / role / name
    content = path.read_bytes()
    how = draw.choices(WAYS, [weight for _, weight in WAYS])[0][0]
    how(draw, path, secret / role / name)
    outside.take()
    begin = time.process_time()
    result, message = FINE, ""
    try:
        load(models)
    except MtpError as error:
        result, message = REFUSED, str(error)
    except BaseException:
        result, message = UNTYPED, traceback.format_exc()
    took = time.process_time() - begin
    opened = outside.take()
    remove(path)
    path.write_bytes(content)
    return {
        "file": f"{role}/{name}", "how": how.__name__, "result": result, "message": message[-2000:],
        "seconds": took, "outside": opened,
        "peak": peak_bytes(),
    }  # fmt: skip


def peak_bytes() -> int:
    """The most memory of this process; what getrusage says, Linux hands on from its parent."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def load(models: Path) -> None:
    with mtp_mlx.load(models / "target", draft_model=models / "drafter") as llm:
        assert llm.logits([2]).shape == (1, llm.config.vocab_size)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


# --- the ways ------------------------------------------------------------------------------------


def some_bytes(draw: random.Random, path: Path, secret: Path) -> None:
    """A few bytes changed, inserted, dropped or repeated, where the file is JSON."""
    data = bytearray(path.read_bytes())
    begin = 0
    end = len(data)
    if path.suffix == ".safetensors":
        end = 8 + int.from_bytes(data[:8], "little")
        begin = 0 if draw.random() < 0.1 else 8
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(begin, end)
        kind = draw.randrange(4)
        if kind == 0:
            data[at] = draw.choice(BYTES)
        elif kind == 1:
            data.insert(at, draw.choice(BYTES))
        elif kind == 2:
            del data[at]
        else:
            data[at : at + 1] = data[at : at + draw.randint(1, 30)] * 2
    if path.suffix == ".safetensors" and draw.random() < 0.5:  # the length fits again
        grown = len(data) - path.stat().st_size
        data[:8] = (max(end - 8 + grown, 0)).to_bytes(8, "little")
    path.write_bytes(data)


def cut(draw: random.Random, path: Path, secret: Path) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def grown(draw: random.Random, path: Path, secret: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(draw.randrange(1, 100)))


def some_values(draw: random.Random, path: Path, secret: Path) -> None:
    """Some values of its JSON replaced, dropped, moved or doubled."""
    text, rest = split(path)
    top = json.loads(text)
    for _ in range(draw.randint(1, 3)):
        holder, key = draw.choice(places(top) or [(top, "x")])
        kind = draw.randrange(6)
        if kind < 3:
            holder[key] = copy.deepcopy(draw.choice(HOSTILE))
        elif kind == 3 and key in holder:
            del holder[key]
        elif kind == 4:
            other, place = draw.choice(places(top) or [(top, "x")])
            holder[key] = copy.deepcopy(other.get(place))
        else:
            holder[
                draw.choice(["x", "auto_map", "quantization", "model_file", "per_layer_config"])
            ] = copy.deepcopy(draw.choice(HOSTILE))
    join(path, json.dumps(top), rest)


def places(top: dict) -> list[tuple[dict, str]]:
    """Every key of every object, with its holder."""
    found: list[tuple[dict, str]] = []
    waiting: list[object] = [top]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            found += [(each, key) for key in each]
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return found


def split(path: Path) -> tuple[str, bytes | None]:
    """A file's JSON, and the data behind it."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        return data.decode(), None
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end].decode(), data[end:]


def join(path: Path, text: str, rest: bytes | None) -> None:
    data = text.encode("utf-8", "surrogatepass")
    prefix = b"" if rest is None else len(data).to_bytes(8, "little")
    path.write_bytes(prefix + data + (rest or b""))


def a_number(draw: random.Random, path: Path, secret: Path) -> None:
    """One number spelled in a way that JSON has not, or too long."""
    text, rest = split(path)
    spans = [at for at, letter in enumerate(text) if letter.isdigit()]
    at = draw.choice(spans)
    odd = draw.choice(
        ["NaN", "-Infinity", "1e999", "9" * 5000, "-0", "0x10", "[" * 200, "1.0", "1e2"]
    )
    join(path, text[:at] + odd + text[at + 1 :], rest)


def a_key_twice(draw: random.Random, path: Path, secret: Path) -> None:
    text, rest = split(path)
    key = draw.choice(list(json.loads(text)))
    join(
        path, "{" + json.dumps(key) + ":" + json.dumps(draw.choice(HOSTILE)) + "," + text[1:], rest
    )


def a_link(draw: random.Random, path: Path, secret: Path) -> None:
    """The file is a link: to the same file elsewhere, say, which would load and may not be read."""
    path.unlink()
    to: Any = [
        secret, os.path.relpath(secret, path.parent), "/etc/passwd", "/dev/zero", path.name,
        "/proc/self/mem", path.parent.parent / "nothing",
    ]  # fmt: skip
    path.symlink_to(draw.choice(to))


def another_place(draw: random.Random, path: Path, secret: Path) -> None:
    """The index (which the drafter has not: it gets one) says that a tensor lies elsewhere."""
    index = path.parent / INDEX
    if not index.exists():
        cut(draw, path, secret)
        return
    before = index.read_bytes()
    weights = secret.parent / "model-00001-of-00002.safetensors"
    values = json.loads(before)
    ways = [
        str(weights), os.path.relpath(weights, path.parent), "/etc/passwd", "..\\x.safetensors",
        ".safetensors", "a/../model-00001-of-00002.safetensors", "model\u0000.safetensors",
        "~/x.safetensors",
    ]  # fmt: skip
    name = draw.choice(list(values["weight_map"]))
    values["weight_map"][name] = draw.choice(ways)
    if path == index:
        index.write_text(json.dumps(values))
    else:
        cut(draw, path, secret)


def another_kind(draw: random.Random, path: Path, secret: Path) -> None:
    """No file at all, or a folder or a pipe in its place."""
    path.unlink()
    kind = draw.randrange(3)
    if kind == 1:
        path.mkdir()
    elif kind == 2:
        os.mkfifo(path)


Way = Callable[[random.Random, Path, Path], None]
WAYS: tuple[tuple[Way, int], ...] = (
    (some_bytes, 8), (some_values, 14), (a_number, 3), (a_key_twice, 1), (cut, 2), (grown, 1),
    (a_link, 3), (another_place, 3), (another_kind, 1),
)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
