"""The tools that may be declared: how they look, how users ask for them, what they answer."""

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from training.world.facts import ANIMALS, CITIES, PLACES, WEATHERS


class Tool(NamedTuple):
    """`answer` makes what the tool returns; `said` tells it, from arguments and answer together.
    `near` are plain kinds with questions that sound like questions for this tool."""

    description: str
    parameters: dict[str, str]
    asked: tuple[str, ...]
    pick: Callable[[Random], dict[str, Any]]
    answer: Callable[[Random, dict[str, Any]], dict[str, Any]]
    said: str
    near: tuple[str, ...] = ()


def _city(random: Random) -> dict[str, Any]:
    return {"city": random.choice(CITIES)}


def _clock(random: Random, _: dict) -> dict[str, Any]:
    return {"time": f"{random.randint(0, 23)}:{random.randrange(0, 60, 5):02}"}


def _weather(random: Random, _: dict) -> dict[str, Any]:
    return {"weather": random.choice(WEATHERS), "degrees": random.randint(0, 35)}


def _place(random: Random, _: dict) -> dict[str, Any]:
    return {"place": PLACES[random.choice(list(PLACES))]}


TOOLS = {
    "get_weather": Tool(
        "Get the weather in a city.",
        {"city": "string"},
        (
            "What is the weather in {city}?",
            "How is the weather in {city}?",
            "What is the weather like in {city} today?",
            "Tell me the weather in {city}.",
            "Is it sunny in {city}?",
            "Is it cold in {city} today?",
            "Get the weather in {city}.",
        ),
        _city,
        _weather,
        "It is {weather} in {city}, with {degrees} degrees.",
    ),
    "get_time": Tool(
        "Get the time in a city.",
        {"city": "string"},
        (
            "What time is it in {city}?",
            "What is the time in {city}?",
            "Tell me the time in {city}.",
            "What time is it now in {city}?",
            "Get the time in {city}.",
        ),
        _city,
        _clock,
        "It is {time} in {city}.",
    ),
    "add": Tool(
        "Add two numbers.",
        {"a": "integer", "b": "integer"},
        (
            "What is {a} + {b}?",
            "{a} + {b} =",
            "Add {a} and {b}.",
            "Please add {a} and {b}.",
            "What is {a} plus {b}?",
        ),
        lambda random: {"a": random.randint(2, 99), "b": random.randint(2, 99)},
        lambda _, given: {"sum": given["a"] + given["b"]},
        "{a} + {b} = {sum}.",
        near=("sums", "json", "python"),
    ),
    "set_timer": Tool(
        "Set a timer.",
        {"minutes": "integer"},
        (
            "Set a timer for {minutes} minutes.",
            "Set a timer to {minutes} minutes.",
            "I need a timer for {minutes} minutes.",
            "Can you set a timer for {minutes} minutes?",
            "Timer for {minutes} minutes.",
        ),
        lambda random: {"minutes": random.randint(2, 60)},
        lambda _, given: {"ready": True},
        "The timer is set for {minutes} minutes.",
    ),
    "find_animal": Tool(
        "Find out where an animal is now.",
        {"name": "string"},
        (
            "Where is the {name}?",
            "Where is the {name} now?",
            "Find the {name}.",
            "Can you find the {name}?",
            "Please find the {name}.",
        ),
        lambda random: {"name": random.choice(list(ANIMALS))},
        _place,
        "The {name} is {place} now.",
        near=("animals",),
    ),
}


def declaration(name: str) -> dict[str, Any]:
    """The tool in OpenAI's form."""
    tool = TOOLS[name]
    parameters = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in tool.parameters.items()},
        "required": list(tool.parameters),
    }
    function = {"name": name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}
