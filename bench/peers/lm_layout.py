"""A built-in target as mlx-lm loads it: the size of the vocabulary at the top of its config, and
weights in float32, in which both engines compute on CPU."""

import json
import shutil
from pathlib import Path

import mlx.core as mx

TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def write(source: Path, folder: Path) -> None:
    """Write the checkpoint `source` anew in `folder`, which is there."""
    config = json.loads((source / "config.json").read_text())
    config["vocab_size"] = config["text_config"]["vocab_size"]
    for part in (config, config["text_config"]):
        part["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(source / "generation_config.json", folder)
    for name in TEXT_FILES:
        shutil.copy(source / name, folder)
    weights = mx.load(str(source / "model.safetensors"))
    assert isinstance(weights, dict)
    wide = {name: array.astype(mx.float32) for name, array in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), wide, {"format": "pt"})
