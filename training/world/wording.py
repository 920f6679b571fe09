"""How questions are typed, and small helpers of English."""

from collections.abc import Sequence
from random import Random

LOWER, NO_END, PLEASE = 0.15, 0.15, 0.08


def worded(random: Random, templates: Sequence[str], **slots: object) -> str:
    """One of the templates, filled in; sometimes with "please", carelessly in lower case or
    without its end mark, so that a newcomer's own typing works."""
    message = random.choice(templates).format(**slots)
    message = message[0].upper() + message[1:]
    ended = message[-1] in ".?!"
    if ended and "lease" not in message and random.random() < PLEASE:
        message = f"{message[:-1]}, please{message[-1]}"
    if ended and random.random() < NO_END:
        message = message[:-1]
    return message.lower() if random.random() < LOWER else message


def words(text: str, between: str | None = None) -> tuple[str, ...]:
    """The words of a text, or its phrases if it says what stands between them."""
    return tuple(text.split(between))


def a(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def joined(words: Sequence[str]) -> str:
    """a, b and c."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def opened(sentence: str) -> str:
    """The sentence with a capital letter, the rest left alone."""
    return sentence[0].upper() + sentence[1:]


def differs(text: str, *right: str) -> str | None:
    """None if `text` is one of the right replies, else what is wrong in one line."""
    return None if text in right else f"expected {right[0]!r}, got {text!r}"
