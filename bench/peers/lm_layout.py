"""A built-in target or drafter as the peers load it: the size of the vocabulary at the top of its
config, and weights in float32, in which all engines compute on CPU."""

import json
import shutil
from pathlib import Path

import mlx.core as mx

TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")  # of a target


def write(source: Path, folder: Path) -> None:
    """Write the checkpoint `source` anew in `folder`, which is there."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] = config["text_config"]["vocab_size"]
    for part in (config, config["text_config"]):
        part["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.copy(source / "generation_config.json", folder)
    for name in TEXT_FILES:
        if (source / name).exists():
            shutil.copy(source / name, folder)
    weights = mx.load(str(source / "model.safetensors"))
    assert isinstance(weights, dict)
    wide = {
        name: array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array
        for name, array in weights.items()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), wide, {"format": "pt"})
