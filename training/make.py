"""Trains an embedded pair from nothing and writes it into the package.

    python -m training.make tiny            # tokenizer, target, drafter, centroid head, files
    python -m training.make tiny --keep-target   # only the drafter, on the target in the package

`make pairs` does both pairs side by side, one core each, in the goldens' environment, and pins the
files (`python -m training.export`).
"""

import argparse
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from mtp_mlx.embedded import HERE, NAMES
from mtp_mlx.text.template import ChatTemplate
from mtp_mlx.text.tokenizer import Tokenizer
from training import centroids, corpus, drafter, export, gemma_files, target, vocabulary, world

SEED = 1
VOCABULARY_EXAMPLES = 20_000
TARGET_TOKENS = {"tiny": 3_000_000, "tiny-moe": 3_000_000}
DRAFTER_TOKENS = {"tiny": 1_200_000, "tiny-moe": 1_200_000}
CENTROID_STEPS = 150
CONTROL = re.compile(r'<\|?[a-z_"]+\|?>')


def main() -> None:
    """Train what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--keep-target", action="store_true", help="train the drafter only")
    parser.add_argument("--share", type=float, default=1.0, help="of all tokens, for trials")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name, share = arguments.name, arguments.share
    learnt = vocabulary.learn(world_texts())
    folder = HERE / name
    if arguments.keep_target:
        model = read_target(name)
    else:
        export.write_json(folder / "tokenizer.json", learnt, indent=None)
        export.write_json(folder / "tokenizer_config.json", gemma_files.tokenizer_config())
        count = int(share * TARGET_TOKENS[name])
        model = target.train(name, corpus.texts(writer(name), SEED), count, SEED)
        export.write_target(name, model, learnt)
    model = export.rounded(model)
    source = corpus.texts(writer(name), SEED + 1)
    count = int(share * DRAFTER_TOKENS[name])
    draft = drafter.train(name, model, source, count, SEED)
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
        raise ValueError(f"the target in {Path(HERE / name)} has another shape; train it again")
    return model.float().eval()


def world_texts() -> Iterator[str]:
    """Texts of the world without control tokens, to learn pieces from."""
    for example in itertools.islice(world.examples(SEED, "train"), VOCABULARY_EXAMPLES):
        contents = [message.get("content") or "" for message in example.messages]
        contents += [world.written(example.reply), example.tools or ""]
        for content in contents:
            text = content if isinstance(content, str) else json.dumps(content)
            yield CONTROL.sub(" ", text)


if __name__ == "__main__":
    main()
