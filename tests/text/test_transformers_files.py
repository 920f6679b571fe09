"""Tokenizer files that Transformers saved, beside a target that it did not."""

import json

import mtp_mlx
from tests.golden import recipe

# What Transformers writes where a tokenizer has no limit: int(1e30), 31 digits.
NO_LIMIT = 1000000000000000019884624838656
TEXT = 'Hello there, <turn|> "world"\n\n  é 日本 \U0001f600 42'


def _both_ways(llm: mtp_mlx.LLM) -> tuple[list[int], list[int]]:
    """Ids of TEXT as plain text and as a template's."""
    return llm.tokenizer.encode(TEXT), llm.tokenizer.encode_template(TEXT)


def test_a_pair_loads_with_a_tokenizer_that_transformers_saved(tmp_path):
    from transformers import AutoTokenizer

    target, drafter = recipe.write_pair(tmp_path, "e2b")
    config_file = target / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config.pop("model_max_length", None)
    config_file.write_text(json.dumps(config), encoding="utf-8")
    with mtp_mlx.load(target, draft_model=drafter) as llm:
        before = _both_ways(llm)

    AutoTokenizer.from_pretrained(target).save_pretrained(target)

    saved = json.loads(config_file.read_text(encoding="utf-8"))
    assert saved["model_max_length"] == NO_LIMIT
    with mtp_mlx.load(target, draft_model=drafter) as llm:
        assert llm.has_drafter
        assert _both_ways(llm) == before
