"""Trains an embedded pair from nothing and writes it into the package.

    python -m training.make tiny                     # all phases
    python -m training.make tiny --phase drafter     # one of them, on what the package holds

The phases: `target` (tokenizer and target), `polish` and `settle` (the target again, each from a
lower rate), `drafter` (and its centroid head). `make pairs` does both pairs side by side, one core
each, in the goldens' environment, and pins the files (`python -m training.export`).
"""

import argparse
import itertools
import json
import re
import shutil
from collections.abc import Iterator

import torch

from mtp_mlx.embedded import HERE, NAMES
from mtp_mlx.text.template import ChatTemplate
from mtp_mlx.text.tokenizer import Tokenizer
from training import centroids, corpus, drafter, export, gemma_files, target, vocabulary, world

SEED = 1
VOCABULARY_EXAMPLES = 20_000
TARGET_TOKENS = {"tiny": 3_500_000, "tiny-moe": 3_800_000}
POLISH_TOKENS = {"tiny": 1_500_000, "tiny-moe": 2_200_000}
SETTLE_TOKENS = {"tiny": 800_000, "tiny-moe": 1_000_000}
DRAFTER_TOKENS = 1_200_000
PHASES = ("target", "polish", "settle", "drafter")
CENTROID_STEPS = 150
CONTROL = re.compile(r'<\|?[a-z_"]+\|?>')


def main() -> None:
    """Train what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--phase", choices=PHASES, help="one alone; by default all")
    parser.add_argument("--share", type=float, default=1.0, help="of all tokens, for trials")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name, share = arguments.name, arguments.share
    for phase in PHASES if arguments.phase is None else (arguments.phase,):
        if phase == "target":
            make_target(name, int(share * TARGET_TOKENS[name]))
        elif phase == "polish":
            again(name, SEED + 1, int(share * POLISH_TOKENS[name]), target.POLISH_RATE)
        elif phase == "settle":
            again(name, SEED + 3, int(share * SETTLE_TOKENS[name]), target.SETTLE_RATE)
        else:
            make_drafter(name, int(share * DRAFTER_TOKENS))


def make_target(name: str, num_tokens: int) -> None:
    """Tokenizer and a new target."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    export.write_json(folder / "tokenizer.json", vocabulary.learn(world_texts()), indent=None)
    export.write_json(folder / "tokenizer_config.json", gemma_files.tokenizer_config())
    model = target.new_target(name, SEED)
    target.train(name, model, corpus.texts(writer(name), SEED), num_tokens, target.RATE)
    export.write_target(name, model)


def again(name: str, seed: int, num_tokens: int, rate: float) -> None:
    """More of the same for the target in the package, on texts drawn anew."""
    model = read_target(name)
    target.train(name, model, corpus.texts(writer(name), seed), num_tokens, rate)
    export.write_target(name, model)


def make_drafter(name: str, num_tokens: int) -> None:
    """A new drafter for the target in the package."""
    model = read_target(name)
    source = corpus.texts(writer(name), SEED + 2)
    draft = drafter.train(name, model, source, num_tokens, SEED)
    if draft.masked_embedding is not None:
        kept = centroids.attach(export.rounded(draft), model, source, CENTROID_STEPS, SEED)
        print(f"{name} centroids keep {kept:.4f} of the head's choices")
    export.write_drafter(name, draft)


def writer(name: str) -> corpus.Writer:
    """The tokenizer and template of a pair."""
    template = ChatTemplate(export.chat_template(name), {"bos_token": "<bos>"})
    return corpus.Writer(Tokenizer.from_folder(HERE / name), template)


def read_target(name: str) -> torch.nn.Module:
    """The target as the package holds it."""
    from safetensors.torch import load_file

    model = target.new_target(name, SEED)
    stored = load_file(HERE / name / export.WEIGHTS)
    state = {key.replace(export.TARGET_PREFIX, "model.", 1): v for key, v in stored.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"the target in {HERE / name} has another shape; train it again")
    return model.float().eval()


def world_texts() -> Iterator[str]:
    """Texts of the world without control tokens, to learn pieces from.

    What users ask about other worlds is left out: it would cost pieces that name nothing here.
    """
    for example in itertools.islice(world.examples(SEED, "train"), VOCABULARY_EXAMPLES):
        for message in example.messages:
            yield "model" if message["role"] == "assistant" else message["role"]
            content = message.get("content") or ""
            if example.kind != "unknown" or message["role"] == "assistant":
                yield content if isinstance(content, str) else json.dumps(content)
        yield CONTROL.sub(" ", world.written(example.reply))
        for tool in example.tools or []:
            made = tool["function"]
            yield f"declaration:{made['name']}{{description:{made['description']}"
            yield ",parameters:{properties:{" + ",".join(made["parameters"]["properties"])
            yield ":{type:STRING INTEGER}},required:[],type:OBJECT}}"


if __name__ == "__main__":
    main()
