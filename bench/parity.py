"""How far our logits lie from Transformers', per variant, beside mlx-lm and the NumPy twin.

Largest absolute difference over the golden prompts of 1, 23 and 72 ids, float32 on CPU; `e` is
Transformers' own float32-against-float64 error, `chain` three chained draft steps against
Transformers' drafter. Prints a table, then one JSON line.

    python -m bench.parity
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
import numpy as np

from mtp_mlx.checkpoint import open_drafter, open_target
from mtp_mlx.engine import forced
from mtp_mlx.measure.where import where
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.load import load_drafter, load_target
from mtp_mlx.model.view import draft_view
from mtp_mlx.reference import decode
from mtp_mlx.reference.load import load_weights
from mtp_mlx.reference.target import Target as NumpyTarget
from tests.golden import recipe

DRAFT_LENGTHS = (23, 72)
EXTRA_KEYS = {"": 1, "_window": 0}


def logits_differences(folder: Path, golden: recipe.Weights) -> dict[str, float]:
    """Largest difference from Transformers of MLX, NumPy and mlx-lm; `folder` in mlx layout."""
    from mlx_lm.utils import load_model

    opened = open_target(folder)
    ours = load_target(opened, mx.float32)
    twin = NumpyTarget(opened.config, load_weights(opened))
    theirs, _ = load_model(folder)
    worst = {"mlx": 0.0, "numpy": 0.0, "mlx_lm": 0.0}
    for length in recipe.PROMPT_LENGTHS:
        ids = golden[f"ids_{length}"].tolist()
        found = {
            "mlx": forced.logits(ours, ids, chunk=len(ids)),
            "numpy": decode.logits(twin, ids),
            "mlx_lm": np.array(theirs(mx.array([ids])))[0],
        }
        for name, logits in found.items():
            difference = float(np.abs(logits - golden[f"logits_{length}"]).max())
            worst[name] = max(worst[name], difference)
    return worst


def chain_difference(target_folder: Path, drafter_folder: Path, golden: recipe.Weights) -> float:
    """Largest difference of logits and hidden states over three chained draft steps."""
    opened = open_target(target_folder)
    target = load_target(opened, mx.float32)
    drafter = load_drafter(open_drafter(drafter_folder, opened.config), mx.float32)
    worst = 0.0
    for length in DRAFT_LENGTHS:
        ids = golden[f"ids_{length}"].tolist()
        cache = target.new_cache(1, 8)
        rows = (Row(0, 0, length - 1),)
        state = target(Batch.of(rows, mx.array(ids[:-1]), is_chunk=True), cache)[-1:]
        cache.commit(0, length - 1)
        for form, extra_keys in EXTRA_KEYS.items():
            view, hidden, token = draft_view(cache, (0,), extra_keys), state, ids[-1]
            for step in range(3):
                scores, hidden = drafter.step(target.embed(mx.array([token])), hidden, view)
                theirs = golden[f"draft_{length}{form}_logits"][step]
                names = slice(None) if scores.ids is None else np.array(scores.ids)[0]
                states = golden[f"draft_{length}{form}_hidden"][step]
                worst = max(worst, np.abs(np.array(scores.scores)[0] - theirs[names]).max())
                worst = max(worst, np.abs(np.array(hidden)[0] - states).max())
                token = int(golden[f"draft_{length}{form}_tokens"][step])
    return float(worst)


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=recipe.VARIANTS, action="append")
    arguments = parser.parse_args()
    rows = []
    print(f"{'variant':8} {'e':>9} {'MLX':>9} {'NumPy':>9} {'mlx-lm':>9} {'chain':>9}")
    for variant in arguments.variant or recipe.VARIANTS:
        golden = recipe.golden(variant)
        with tempfile.TemporaryDirectory() as folder:
            target, drafter = recipe.write_pair(Path(folder), variant, layout="mlx")
            row = logits_differences(target, golden)
            row["chain"] = chain_difference(target, drafter, golden)
        row["e"] = json.loads(str(golden["meta"]))["error"]
        rows.append({"variant": variant, **row})
        cells = " ".join(f"{row[key]:9.1e}" for key in ("e", "mlx", "numpy", "mlx_lm", "chain"))
        print(f"{variant:8} {cells}")
    print(json.dumps({"bench": "parity", "machine": asdict(where()), "rows": rows}))


if __name__ == "__main__":
    main()
