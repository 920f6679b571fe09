"""A7: code in a model folder is never run."""

import sys

import pytest

import mtp_mlx
from tests.bad_input.faults import both_backends
from tests.bad_input.files import copy_pair, edit_json

FILES = (
    "modeling_canary", "configuration_canary", "tokenization_canary", "processing_canary",
    "sitecustomize", "conftest", "__init__", "numpy", "tokenizers",
)  # fmt: skip
MAP = {
    "AutoConfig": "configuration_canary.Config",
    "AutoModelForCausalLM": "modeling_canary.Model",
    "AutoTokenizer": ["tokenization_canary.Tokenizer", None],
}


@both_backends
@pytest.mark.parametrize("is_in_folder", [False, True], ids=["elsewhere", "in_the_folder"])
def test_code_of_a_model_is_not_imported(is_in_folder, backend, tmp_path, monkeypatch):
    pair = copy_pair(tmp_path, "31b")
    canary = tmp_path / "canary"
    for folder in pair:
        for name in FILES:
            (folder / f"{name}.py").write_text(f"open({str(canary)!r}, 'w')\n")
        for name in ("config.json", "tokenizer_config.json"):
            edit_json(folder / name, lambda values: values.update(auto_map=MAP, trust=True))
        edit_json(folder / "config.json", lambda v: v.update(model_file="modeling_canary.py"))
    if is_in_folder:
        monkeypatch.chdir(pair[0])
    llm = mtp_mlx.load(pair[0], draft_model=pair[1], backend=backend)
    assert len(llm.generate("a", max_tokens=2).token_ids) <= 2
    assert not canary.exists()
    assert not [name for name in sys.modules if name.endswith("_canary")]
