"""Adding, taking away, small products, and problems about fruit."""

import re
from random import Random

from training.world.example import Turn
from training.world.facts import FRUITS, NAMES
from training.world.wording import worded

SIGNS = {
    "+": (
        "What is {a} + {b}?",
        "What's {a} + {b}?",
        "{a} + {b} =",
        "{a}+{b}",
        "{a} + {b}?",
        "What is {a} plus {b}?",
        "Please add {a} and {b}.",
        "Add {a} and {b}.",
        "How much is {a} plus {b}?",
    ),
    "-": (
        "What is {a} - {b}?",
        "What's {a} - {b}?",
        "{a} - {b} =",
        "{a}-{b}",
        "{a} - {b}?",
        "What is {a} minus {b}?",
        "Take {b} from {a}.",
        "How much is {a} minus {b}?",
    ),
    "x": (
        "What is {a} x {b}?",
        "{a} x {b} =",
        "{a} * {b}",
        "What is {a} * {b}?",
        "What is {a} times {b}?",
        "How much is {a} times {b}?",
    ),
}
MORE = (
    "{name} has {a} {fruit}. {giver} gives {them} {b} more. How many {fruit} does {name} have?",
    "{name} has {a} {fruit} and finds {b} more. How many {fruit} does {name} have?",
    "{name} has {a} {fruit}. Then {name} gets {b} more {fruit}. How many is that?",
)
LESS = (
    "{name} has {a} {fruit} and eats {b}. How many {fruit} are left?",
    "{name} has {a} {fruit}. {giver} takes {b} of them. How many {fruit} are left?",
    "{name} has {a} {fruit} and gives {b} to {giver}. How many {fruit} does {name} have left?",
)
THOUGHTS = {
    "+": "I add {a} and {b}. {a} + {b} = {answer}.",
    "-": "I take {b} from {a}. {a} - {b} = {answer}.",
    "x": "I take {a} times {b}. {a} x {b} = {answer}.",
}


def ask(random: Random) -> Turn:
    if random.random() < 0.25:
        return _problem(random)
    sign = random.choice("++--x")
    if sign == "x":
        a, b = random.randint(1, 5), random.randint(1, 5)
    else:
        a, b = random.randint(0, 10), random.randint(0, 10)
    if sign == "-":
        a, b = max(a, b), min(a, b)
    message = worded(random, SIGNS[sign], a=a, b=b)
    return Turn(message, f"{a} {sign} {b} = {worked(sign, a, b)}.", (sign, a, b, None))


def check(facts: tuple, text: str) -> str | None:
    sign, a, b, whose = facts
    answer = worked(sign, a, b)
    equation = re.match(r"(\d+) ([-+x]) (\d+) = (\d+)\.", text)
    if equation is None:
        return f"not a sum: {text!r}"
    if equation.groups()[:3] != (str(a), sign, str(b)):
        return f"the sum asked for is {a} {sign} {b}"
    if equation[4] != str(answer):
        return f"{a} {sign} {b} is {answer}, not {equation[4]}"
    rest = f" {_told(whose, sign, answer)}" if whose else ""
    return None if text[equation.end() :] == rest else f"wrong after the sum: {text!r}"


def thought(facts: tuple) -> str:
    sign, a, b, _ = facts
    return THOUGHTS[sign].format(a=a, b=b, answer=worked(sign, a, b))


def worked(sign: str, a: int, b: int) -> int:
    return {"+": a + b, "-": a - b, "x": a * b}[sign]


def _problem(random: Random) -> Turn:
    name, giver = random.sample(list(NAMES), 2)
    fruit, sign = random.choice(FRUITS), random.choice("+-")
    b = random.randint(1, 5)
    a = random.randint(2, 10) if sign == "+" else random.randint(b + 1, 10)
    slots = {"name": name, "giver": giver, "them": NAMES[name], "a": a, "b": b, "fruit": fruit}
    message = worded(random, MORE if sign == "+" else LESS, **slots)
    answer = worked(sign, a, b)
    reply = f"{a} {sign} {b} = {answer}. {_told((name, fruit), sign, answer)}"
    return Turn(message, reply, (sign, a, b, (name, fruit)))


def _told(whose: tuple[str, str], sign: str, answer: int) -> str:
    name, fruit = whose
    return f"{name} has {answer} {fruit}{'' if sign == '+' else ' left'}."
