"""A few lines of Python in a fence: functions, loops and lists with the prompt's numbers."""

from random import Random

from training.world.example import Turn
from training.world.facts import NAMES, ORDINALS
from training.world.wording import worded

FENCE = "```python\n{}\n```"
ASKED = {
    "function": (
        "Write a Python function {name} that {does}.",
        "Write a function called {name} that {does}.",
        "Can you write a Python function {name} that {does}?",
        "Python: a function {name} that {does}.",
        "I need a function {name} that {does}.",
    ),
    "loop": (
        "Write a Python loop that prints the numbers from {first} to {last}.",
        "Print the numbers from {first} to {last} in Python.",
        "Write a for loop from {first} to {last}.",
        "Python: print the numbers from {first} to {last}.",
    ),
    "repeat": (
        "Write a Python loop that says hello {times} times.",
        "Print hello {times} times in Python.",
        "Python: print hello {times} times.",
    ),
    "list": (
        "Make a Python list of {numbers} and print the {place} one.",
        "Put {numbers} in a Python list and print the {place} number.",
        "Python: make a list of {numbers} and print the {place} number.",
    ),
    "total": (
        "Make a Python list of {numbers} and print the sum.",
        "Put {numbers} in a Python list and print the sum.",
        "Python: print the sum of {numbers}.",
    ),
    "hello": (
        "Write Python that says hello to {who}.",
        "Write a Python function that says hello to {who}.",
        "Python: say hello to {who}.",
    ),
}
PROGRAMS = {
    "function": "def {name}({parameters}):\n    return {value}",
    "loop": "for i in range({first}, {stop}):\n    print(i)",
    "repeat": 'for i in range({times}):\n    print("hello")',
    "list": "numbers = [{numbers}]\nprint(numbers[{index}])",
    "total": "numbers = [{numbers}]\nprint(sum(numbers))",
    "hello": 'def greet(name):\n    print("Hello, " + name)\n\n\ngreet("{who}")',
}
TWO_NUMBERS = (
    ("add", "adds two numbers", "a + b"),
    ("take", "takes b from a", "a - b"),
    ("times", "multiplies two numbers", "a * b"),
)
ONE_NUMBER = (
    ("add_{n}", "adds {n} to a number", "x + {n}"),
    ("take_{n}", "takes {n} from a number", "x - {n}"),
    ("times_{n}", "multiplies a number by {n}", "x * {n}"),
)


def ask(random: Random) -> Turn:
    form = random.choice(("function", "function", *ASKED))
    facts = (form, *MAKERS[form](random).items())
    said = dict(facts[1:])
    said["numbers"] = " and ".join(str(said.get("numbers", "")).rsplit(", ", 1))
    return Turn(worded(random, ASKED[form], **said), FENCE.format(_program(facts)), facts)


def check(facts: tuple, text: str) -> str | None:
    head, tail = FENCE.split("{}")
    if not (text.startswith(head) and text.endswith(tail) and len(text) > len(head + tail)):
        return f"not one Python fence: {text!r}"
    found = text[len(head) : -len(tail)].split("\n")
    right = _program(facts).split("\n")
    for line, truth in zip(found, right, strict=False):
        if line != truth:
            return f"expected the line {truth!r}, got {line!r}"
    return None if len(found) == len(right) else f"{len(found)} lines instead of {len(right)}"


def thought(facts: tuple) -> str:
    ends = {"function": "a function", "loop": "a loop", "repeat": "a loop", "hello": "a function"}
    return f"I need {ends.get(facts[0], 'a list')} in Python."


def _function(random: Random) -> dict[str, str]:
    if random.random() < 0.2:
        name, does, value = random.choice(TWO_NUMBERS)
        return {"name": name, "does": does, "value": value, "parameters": "a, b"}
    n = random.randint(2, 30)
    name, does, value = (part.format(n=n) for part in random.choice(ONE_NUMBER))
    return {"name": name, "does": does, "value": value, "parameters": "x"}


def _loop(random: Random) -> dict[str, int]:
    first = random.randint(0, 10)
    last = first + random.randint(2, 10)
    return {"first": first, "last": last, "stop": last + 1}


def _repeat(random: Random) -> dict[str, int]:
    return {"times": random.randint(2, 40)}


def _list(random: Random) -> dict[str, str | int]:
    count = random.randint(3, 5)
    index = random.randrange(count)
    return {**_total(random, count), "index": index, "place": ORDINALS[index]}


def _total(random: Random, count: int | None = None) -> dict[str, str | int]:
    count = count or random.randint(3, 5)
    return {"numbers": ", ".join(str(random.randint(0, 20)) for _ in range(count))}


def _hello(random: Random) -> dict[str, str]:
    return {"who": random.choice(list(NAMES))}


MAKERS = {
    "function": _function,
    "loop": _loop,
    "repeat": _repeat,
    "list": _list,
    "total": _total,
    "hello": _hello,
}


def _program(facts: tuple) -> str:
    return PROGRAMS[facts[0]].format(**dict(facts[1:]))
