"""Random replies under a grammar, token by token: any of them could be a model's choice."""

import random
from functools import cache

import numpy as np

from mtp_mlx.constraint.compiler import Compiler
from mtp_mlx.constraint.constrained import Constrained
from mtp_mlx.constraint.grammar import Begins, Grammar
from mtp_mlx.embedded import embedded_folder
from mtp_mlx.text.parts import Markers
from mtp_mlx.text.tokenizer import Tokenizer

ROWS = 1600  # of an embedding table that is padded: the embedded tokenizers have 1,536 ids
WORDS = 50
ENDS = frozenset({1, 50, 106})
FREE = 40  # tokens that are drawn freely; then what closes comes first
MOST = 400


@cache
def tokenizer(name: str = "tiny") -> Tokenizer:
    return Tokenizer.from_folder(embedded_folder(name))


def markers() -> Markers:
    return Markers.of(tokenizer())


@cache
def compiler(name: str = "tiny") -> Compiler:
    return Compiler(tokenizer(name), ROWS, ENDS)


def begun(grammar: Grammar, begins: Begins = "reply", name: str = "tiny") -> Constrained:
    return compiler(name).start(grammar, begins)


def allowed(row: np.ndarray) -> list[int]:
    """The tokens of one row of a mask."""
    bits = np.unpackbits(row.view(np.uint8), bitorder="little")
    return [int(token) for token in np.nonzero(bits)[0]]


def next_allowed(constraint: Constrained) -> list[int]:
    [row] = constraint.masks([])
    return allowed(row)


def walk(constraint: Constrained, source: random.Random) -> list[int]:
    """A reply from its first token to the one that ends it."""
    tokens: list[int] = []
    while not tokens or tokens[-1] not in ENDS:
        assert len(tokens) < MOST, "the reply does not end"
        choices = next_allowed(constraint)
        assert choices, "the reply cannot go on"
        if len(tokens) > FREE:
            choices = _closing(choices)
        tokens.append(_drawn(choices, source))
        constraint.take(tokens[-1:])
    return tokens


def _drawn(choices: list[int], source: random.Random) -> int:
    """A token by its first byte, each as likely as the others, or text would drown all else."""
    first = source.choice(sorted({_first_byte(token) for token in choices}))
    return source.choice([token for token in choices if _first_byte(token) == first])


@cache
def _first_byte(token: int) -> bytes:
    is_marker = token in ENDS or token in (48, 49, 52, 100, 101)
    return b"%d" % token if is_marker else tokenizer().piece_bytes(token)[:1]


def _closing(choices: list[int]) -> list[int]:
    """The tokens among these that end most."""
    ranks = {token: _rank(token) for token in choices}
    best = min(ranks.values())
    return [token for token in choices if ranks[token] == best]


@cache
def _rank(token: int) -> int:
    if token in ENDS or token in (markers().thought_end, markers().call_end, markers().quote):
        return 0
    text = tokenizer().piece_bytes(token)
    order = (b'"', b"]", b"}", b",", b"0")
    return order.index(text) + 1 if text in order else len(order) + 1


def text_of(tokens: list[int]) -> str:
    """What a walk says, without its end."""
    return tokenizer().decode(tokens)
