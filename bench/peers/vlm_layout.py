"""A pair as mlx-vlm loads it: in the multimodal wrapper, without which it has no MTP, and with no
word of a vision tower that is not there."""

import json
from pathlib import Path


def drop_vision_config(folder: Path) -> None:
    """mlx-vlm builds a vision tower from null and fails; without the key it drops the tower that no
    tensor belongs to."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("vision_config", None)
    path.write_text(json.dumps(config), encoding="utf-8")
