"""Writes trained models as checkpoint folders in the published form, bfloat16, and pins them.

python -m training.export     # rewrite sha256.json after training
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mtp_mlx.embedded import FOLDERS, HERE, PINS, file_digest
from training import gemma_files, shapes

TARGET_PREFIX = "model.language_model."
WEIGHTS = "model.safetensors"
DTYPE = torch.bfloat16


def write_target(name: str, model: torch.nn.Module) -> None:
    """The target's weights, configs and chat template, beside its tokenizer."""
    folder = HERE / name
    named = {
        key.replace("model.", TARGET_PREFIX, 1): value
        for key, value in model.state_dict().items()
        if key != "lm_head.weight"
    }
    _write_weights(folder, named)
    write_json(folder / "config.json", shapes.target_config(name))
    write_json(folder / "generation_config.json", gemma_files.GENERATION_CONFIG)
    (folder / "chat_template.jinja").write_text(chat_template(name), encoding="utf-8")


def write_drafter(name: str, model: torch.nn.Module) -> None:
    """The drafter's folder: weights and configs; it uses its target's tokenizer."""
    folder = HERE / f"{name}-assistant"
    shutil.rmtree(folder, ignore_errors=True)
    state = {key: value for key, value in model.state_dict().items() if key != "lm_head.weight"}
    _write_weights(folder, state)
    write_json(folder / "config.json", shapes.drafter_config(name))
    settings = {"num_assistant_tokens": shapes.ASSISTANT_TOKENS}
    write_json(folder / "generation_config.json", gemma_files.GENERATION_CONFIG | settings)


def chat_template(name: str) -> str:
    """The template; that of the larger models closes the thought when thinking is off."""
    source = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
    closes = str(shapes.SHAPES[name].closes_thought).lower()
    return source.replace("closes_thought = false", f"closes_thought = {closes}")


def pin() -> None:
    """Rewrite sha256.json from the embedded folders."""
    files = sorted(file for folder in FOLDERS for file in (HERE / folder).iterdir())
    write_json(PINS, {str(file.relative_to(HERE)): file_digest(file) for file in files})


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    separators = (",", ":") if indent is None else None
    text = json.dumps(content, indent=indent, separators=separators, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _write_weights(folder: Path, named: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        key: value.to(DTYPE).contiguous() if value.is_floating_point() else value
        for key, value in named.items()
    }
    save_file(kept, folder / WEIGHTS, {"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # the library leaves it to its owner alone


def rounded(model: torch.nn.Module) -> torch.nn.Module:
    """The model with the values that its file will hold, in float32."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(DTYPE).float()
    return model


if __name__ == "__main__":
    pin()
