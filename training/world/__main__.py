"""Prints examples: python -m training.world --seed 1 --count 20 --split held-out --kind sums"""

from argparse import ArgumentParser
from itertools import islice

from training.world import KINDS, Example, examples, written
from training.world.conversation import SPLITS


def main() -> None:
    parser = ArgumentParser(prog="python -m training.world", description="Print examples.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--kind", choices=KINDS)
    options = parser.parse_args()
    kinds = (options.kind,) if options.kind else KINDS
    for made in islice(examples(options.seed, options.split, kinds), options.count):
        print(shown(made), end="\n\n")


def shown(made: Example) -> str:
    """The conversation, a line or more for each message."""
    names = [tool["function"]["name"] for tool in made.tools or []]
    lines = [f"[{made.kind}]{' thinking' * made.thinking}{' tools: ' * bool(names)}{names or ''}"]
    for message in made.messages:
        content = message["content"]
        text = str(content) if message["role"] == "tool" else written(message)
        lines.append(f"{message['role']}: {text}")
    return "\n".join([*lines, f"-> {written(made.reply)}"])


if __name__ == "__main__":
    main()
