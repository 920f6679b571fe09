"""The grammar of Gemma 4's tool calls: `<|tool_call>call:NAME{key:value,...}<tool_call|>`.

All of it can be read by text/calls.py. Keys are bare, strings stand between two quote tokens, and
numbers are as long as Python reads them. Objects and lists are nested so deep and no deeper.
"""

import json

MAX_DEPTH = 16
# A space to Python is not always one to Rust: control characters are left out by number.
TERMINALS = (
    r"""KEY: /[^\s\x00-\x1f:,{}\[\]<>()"'\\]{1,128}/""",
    r"TEXT: /(.|\n)+/",
    r"NUMBER: /-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][-+]?[0-9]{1,2})?/",
)


def call_rules(names: tuple[str, ...], call: int, call_end: int, quote: int) -> list[str]:
    """Rules for `call`, which calls one of the names; the ids are those of its markers."""
    offered = " | ".join(json.dumps(name, ensure_ascii=False) for name in names)
    rules = [
        f'call: <[{call}]> "call:" name object_1 <[{call_end}]>',
        f"name: {offered}",
        f'scalar: <[{quote}]> TEXT? <[{quote}]> | NUMBER | "true" | "false" | "null"',
        f"value_{MAX_DEPTH}: scalar",
    ]
    for depth in range(1, MAX_DEPTH):
        rules += [
            f"value_{depth}: scalar | object_{depth + 1} | array_{depth + 1}",
            f'array_{depth + 1}: "[" (value_{depth + 1} ("," value_{depth + 1})*)? "]"',
        ]
    for depth in range(1, MAX_DEPTH + 1):
        rules += [
            f'object_{depth}: "{{" (pair_{depth} ("," pair_{depth})*)? "}}"',
            f'pair_{depth}: KEY ":" value_{depth}',
        ]
    return [*rules, *TERMINALS]
