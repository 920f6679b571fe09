"""Rebuild the golden fixtures with Transformers: `<variant>.json` and `<variant>.npz`.

    pip install -r tests/golden/requirements.txt     # an environment of its own, CPU only
    python tests/golden/make.py                      # rewrite all five variants
    python tests/golden/make.py --check              # rebuild aside, exit 1 if a byte differs
    python tests/golden/make.py --search e2b         # seeds for variants.py that pass the limits

Bytes repeat on one machine; another processor may round differently, by at most `error`, so
`--check` also says how far differing arrays lie apart. Weights are not stored (`recipe.py`).

Arrays, for prompts of L = 1, 23 and 72 ids (V = 256 ids, H = 64):
    ids_L [L], logits_L [L, V], hidden_L [L, H]      full forward, hidden after the final norm
    greedy_L [48]                                    argmax continuation, stop ids ignored
    layers_23 [layers, 23, H]                        output of every layer
    {key,value}_{sliding,full}_23 [heads, 23, size]  last owning layer of the type, after RoPE
    draft_L_{logits [3, V], hidden [3, H], tokens [3], selected [3, V]}      L = 23 and 72
        three draft steps at position n = L - 1 from pending token ids_L[-1], the target having
        processed ids_L[:-1]; W + 1 sliding keys visible. `selected` marks the tokens an ordered
        head scores; Transformers fills the others with min(selected) - 1.
    draft_L_window_...                               the same with W sliding keys visible
    meta                                             JSON: versions, seeds, and these figures:
        error, draft_error   largest |float32 - float64| logit over prompts and continuations
        min_gap, draft_gap   smallest gap between the two best tokens along the texts
        choice_gap           smallest gap between the scores of a chosen and an unchosen expert
        choice_error         or centroid, and the largest |float32 - float64| of those scores
        distinct, stops, longest_run   of the 48 tokens; `faults` sets the limits of every figure
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.golden import recipe, reference, variants  # noqa: E402 - needs the path above

GREEDY_TOKENS = 48
DISTINCT_TOKENS = 12
LONGEST_RUN = 6
STOP_IDS = (1, 50, 106)
DETAILED_LENGTH = 23
ERROR_LIMIT = 5e-4
DRAFT_ERROR_LIMIT = 2.5e-5
GAP_LIMIT = 1e-3
LARGER_IS_WORSE = ("error", "draft_error", "choice_error", "stops", "longest_run")
Arrays = dict[str, np.ndarray]
Figures = dict[str, float]


def build_record(name: str, variant: variants.Variant) -> dict[str, Any]:
    """What `<variant>.json` holds; manifests come from the Transformers modules."""
    configs = variants.target_config(variant), variants.drafter_config(variant)
    pair = reference.build_pair(*configs)
    stored: dict[str, Any] = {
        "variant": name,
        "prompt_seeds": {str(length): seed for length, seed in variant.prompt_seeds.items()},
    }
    seeds = variant.target_seed, variant.drafter_seed
    models = pair.target, pair.drafter
    scales = variant.scales, {**variant.scales, "final_norm": variants.DRAFTER_FINAL_NORM}
    parts = zip(("target", "drafter"), configs, seeds, models, scales, strict=True)
    for role, config, seed, model, gains in parts:
        manifest = reference.manifest(model)
        weights = recipe.draw_weights(manifest, seed, gains)
        digest = recipe.weights_sha256(weights)
        stored[role] = {
            "config": config,
            "seed": seed,
            "scales": gains,
            "sha256": digest,
            "manifest": manifest,
        }
    return stored


def load_pairs(stored: dict[str, Any]) -> tuple[reference.Pair, reference.Pair]:
    """The pair in float32 and in float64."""
    pairs = []
    for _ in range(2):
        pair = reference.build_pair(stored["target"]["config"], stored["drafter"]["config"])
        for role, model in (("target", pair.target), ("drafter", pair.drafter)):
            part = stored[role]
            weights = recipe.draw_weights(part["manifest"], part["seed"], part["scales"])
            reference.load(model, weights)
        pairs.append(pair)
    reference.to_float64(pairs[1].target)
    reference.to_float64(pairs[1].drafter)
    return pairs[0], pairs[1]


def measure(
    pair: reference.Pair, precise: reference.Pair, ids: np.ndarray
) -> tuple[Arrays, Figures]:
    """Arrays and figures of one prompt ids [L]."""
    length = len(ids)
    run = reference.run_target(pair.target, ids)
    tokens = reference.greedy(pair.target, ids, GREEDY_TOKENS)
    kept = run if length == DETAILED_LENGTH else {key: run[key] for key in ("logits", "hidden")}
    arrays = {"ids": ids, "greedy": tokens, **kept}
    named = {f"{key}_{length}": value for key, value in arrays.items()}
    figures = measure_text(pair, precise, ids, tokens)
    if length > 1:
        for infix, keys in (("", None), ("window_", sliding_window(pair))):
            chain, more = measure_draft(pair, precise, ids, keys)
            named |= {f"draft_{length}_{infix}{key}": value for key, value in chain.items()}
            figures = merge_figures(figures, more)
    return named, figures


def sliding_window(pair: reference.Pair) -> int:
    return pair.target.config.sliding_window


def measure_text(
    pair: reference.Pair, precise: reference.Pair, ids: np.ndarray, tokens: np.ndarray
) -> Figures:
    """Figures of the target over prompt and continuation together."""
    text = np.append(ids, tokens)
    with reference.recorded(routers(pair)) as routed:
        logits = reference.run_target(pair.target, text)["logits"]
    with reference.float64_internals(), reference.recorded(routers(precise)) as exactly_routed:
        exact = reference.run_target(precise.target, text)["logits"]
    scores = [[output[0] for output in outputs] for outputs in (routed, exactly_routed)]
    return {
        "error": float(np.abs(logits - exact).max()),
        "min_gap": smallest_gap(logits[len(ids) - 1 : -1], 1),
        "distinct": len(set(tokens.tolist())),
        "longest_run": longest_run(tokens),
        "stops": int(np.isin(tokens, STOP_IDS).sum()),
        **choice_figures(*scores, pair.target.config.top_k_experts if routed else 0),
    }


def routers(pair: reference.Pair) -> list[torch.nn.Module]:
    return [layer.router for layer in pair.target.model.layers if hasattr(layer, "router")]


def centroids(pair: reference.Pair) -> list[torch.nn.Module]:
    head = pair.drafter.masked_embedding
    return [] if head is None else [head.centroids]


def measure_draft(
    pair: reference.Pair, precise: reference.Pair, ids: np.ndarray, sliding_keys: int | None
) -> tuple[Arrays, Figures]:
    """Arrays and figures of one draft chain."""
    with reference.recorded(centroids(pair)) as scores:
        chain = reference.draft_chain(pair, ids, sliding_keys)
    with reference.float64_internals(), reference.recorded(centroids(precise)) as exact_scores:
        exact = reference.draft_chain(precise, ids, sliding_keys)
    logits = chain["logits"]
    fill = logits.min(axis=1, keepdims=True)
    chain["selected"] = logits > fill if scores else np.ones_like(logits, dtype=bool)
    top_k = pair.drafter.config.centroid_intermediate_top_k
    figures = {
        "draft_error": float(np.abs(logits - exact["logits"]).max()),
        "draft_gap": smallest_gap(logits, 1),
        **choice_figures(scores, exact_scores, top_k),
    }
    return chain, figures


def choice_figures(scores: list[Any], exact: list[Any], kept: int) -> Figures:
    """Figures of every choice of the `kept` best of scores [..., candidates]."""
    gaps = [smallest_gap(ours.numpy(), kept) for ours in scores]
    errors = [float((ours - true).abs().max()) for ours, true in zip(scores, exact, strict=True)]
    return {"choice_gap": min(gaps, default=1.0), "choice_error": max(errors, default=0.0)}


def longest_run(tokens: np.ndarray) -> int:
    """Length of the longest run of one repeated token."""
    return max(len(list(group)) for _, group in itertools.groupby(tokens.tolist()))


def smallest_gap(scores: np.ndarray, kept: int) -> float:
    """Smallest difference along the last axis between the kept-th and the next largest score."""
    ordered = np.sort(scores, axis=-1)
    return float((ordered[..., -kept] - ordered[..., -kept - 1]).min())


def merge_figures(first: Figures, second: Figures) -> Figures:
    """The worse of each figure."""
    merged = dict(first)
    for key, value in second.items():
        worse = max if key in LARGER_IS_WORSE else min
        merged[key] = worse(merged[key], value) if key in merged else value
    return merged


def faults(figures: Figures) -> list[str]:
    """Why a prompt or a variant makes a poor golden; empty when it is good."""
    error = figures["error"]
    draft_error = figures.get("draft_error", 0.0)
    good = {
        "error": error <= ERROR_LIMIT,
        "draft_error": draft_error <= DRAFT_ERROR_LIMIT,
        "min_gap": figures["min_gap"] > max(GAP_LIMIT, 10 * error),
        "draft_gap": figures.get("draft_gap", 1.0) > max(GAP_LIMIT, 10 * draft_error),
        "choice_gap": figures["choice_gap"] > 10 * figures["choice_error"],
        "distinct": figures["distinct"] >= DISTINCT_TOKENS,
        "longest_run": figures["longest_run"] <= LONGEST_RUN,
        "stops": figures["stops"] == 0,
    }
    return [f"{key} is {figures[key]:.2g}" for key, passed in good.items() if not passed]


def build_golden(stored: dict[str, Any]) -> Arrays:
    """Every array of `<variant>.npz`."""
    pair, precise = load_pairs(stored)
    arrays: Arrays = {}
    figures: Figures = {}
    for length in recipe.PROMPT_LENGTHS:
        ids = recipe.prompt(length, stored["prompt_seeds"].get(str(length), 0))
        named, more = measure(pair, precise, ids)
        arrays |= named
        figures = merge_figures(figures, more)
    if faults(figures):
        raise SystemExit(f"{stored['variant']}: {'; '.join(faults(figures))}; try --search")
    meta = {
        **figures,
        "prompt_seeds": stored["prompt_seeds"],
        "seeds": [stored["target"]["seed"], stored["drafter"]["seed"]],
        "sha256": [stored["target"]["sha256"], stored["drafter"]["sha256"]],
        "versions": {
            "numpy": np.__version__,
            "torch": torch.__version__.partition("+")[0],
            "transformers": transformers.__version__,
        },
    }
    arrays["meta"] = np.array(json.dumps(meta, sort_keys=True))
    return arrays


def write_npz(path: Path, arrays: Arrays) -> None:
    """An uncompressed .npz whose bytes depend on the arrays alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(arrays[name], order="C"), (1, 0))
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, content.getvalue())


def build(folder: Path) -> None:
    """Write both files of every variant into a folder."""
    for name, variant in variants.VARIANTS.items():
        stored = build_record(name, variant)
        text = json.dumps(stored, indent=1)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        arrays = build_golden(stored)
        write_npz(folder / f"{name}.npz", arrays)
        print(name, str(arrays["meta"]), flush=True)


def differences(folder: Path) -> list[str]:
    """What differs between a fresh build in `folder` and the committed files."""
    found = []
    for path in sorted(folder.iterdir()):
        committed = recipe.HERE / path.name
        if committed.exists() and committed.read_bytes() == path.read_bytes():
            continue
        found.append(f"{path.name} differs")
        if committed.exists() and path.suffix == ".npz":
            found += array_differences(committed, path)
    return found


def array_differences(committed: Path, fresh: Path) -> list[str]:
    """One line for every array of two .npz files that differs."""
    with np.load(committed) as old, np.load(fresh) as new:
        names = sorted({*old.files, *new.files} - {"meta"})
        lines = []
        for name in names:
            if name not in old.files or name not in new.files or old[name].shape != new[name].shape:
                lines.append(f"  {name}: missing or of another shape")
            elif not np.array_equal(old[name], new[name]):
                apart = np.abs(old[name].astype(float) - new[name].astype(float)).max()
                lines.append(f"  {name}: up to {apart:.2e} apart")
        return lines


def search(name: str, tries: int = 100) -> None:
    """Print seeds whose texts pass every limit: first the weights, then each prompt."""
    variant = variants.VARIANTS[name]
    for seed in range(variant.target_seed, variant.target_seed + tries):
        models = load_pairs(build_record(name, variants.with_seeds(variant, seed)))
        figures = measure(*models, recipe.prompt(1, 0))[1]
        print(f"{name}: target seed {seed}: {faults(figures) or 'good'}", flush=True)
        if not faults(figures):
            break
    for length in recipe.PROMPT_LENGTHS[1:]:
        figures = search_prompt(models, length, figures, tries)


def search_prompt(
    models: tuple[reference.Pair, reference.Pair], length: int, figures: Figures, tries: int
) -> Figures:
    """Print the first good prompt seed; returns the figures of all prompts so far."""
    for seed in range(1, tries):
        more = merge_figures(figures, measure(*models, recipe.prompt(length, seed))[1])
        print(f"  length {length}, seed {seed}: {faults(more) or 'good'}", flush=True)
        if not faults(more):
            return more
    raise SystemExit(f"no good prompt of {length} ids in {tries} seeds")


def main() -> int:
    parser = argparse.ArgumentParser(description="Rebuild the golden fixtures.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files")
    parser.add_argument("--search", choices=recipe.VARIANTS, help="look for seeds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.search:
        search(options.search)
        return 0
    if not options.check:
        build(recipe.HERE)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        found = differences(Path(folder))
    print("\n".join(found) or "identical to the committed files")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
