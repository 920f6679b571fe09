"""Our target against mlx-lm's own Gemma 4, on the same mlx-community checkpoint.

Both run float32 on the same kernels, in another order of operations, so the bar is that of the
goldens: max(1e-4, 4e), e being the float32 error of Transformers stored in each golden.
"""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.checkpoint import open_target
from mtp_mlx.engine import forced
from mtp_mlx.model.load import load_target
from tests.golden import recipe


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_logits_are_those_of_mlx_lm(variant: str, tmp_path: Path) -> None:
    from mlx_lm.utils import load_model  # imports transformers, which takes seconds

    folder, _ = recipe.write_pair(tmp_path, variant, layout="mlx")
    theirs, _ = load_model(folder)
    ours = load_target(open_target(folder), mx.float32)
    golden = recipe.golden(variant)
    bar = max(1e-4, 4 * json.loads(str(golden["meta"]))["error"])
    for length in recipe.PROMPT_LENGTHS:
        ids = golden[f"ids_{length}"].tolist()
        expected = np.array(theirs(mx.array([ids])))[0]
        found = forced.logits(ours, ids, chunk=len(ids))
        assert np.abs(found - expected).max() <= bar, length
