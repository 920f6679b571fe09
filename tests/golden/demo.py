"""`make demo`: write a random golden pair, generate with its drafter, and prove the text equal to
the target's own. Exit code 3 when it differs."""

import sys
from pathlib import Path

import mtp_mlx
from tests.golden import recipe

VARIANT = "e4b"
PROMPT = "Why is the sky blue?"
TOKENS = 64
SEED = 7


def main() -> int:
    """Print both replies and what the drafter did."""
    folder = Path(".demo")
    target, drafter = recipe.write_pair(folder, VARIANT)
    print(f"wrote a seeded random {VARIANT} pair: {target} and {drafter} (it babbles)")
    with mtp_mlx.load(target, draft_model=drafter) as llm:
        fast = llm.generate(PROMPT, max_tokens=TOKENS, seed=SEED, top_k=4, num_draft_tokens=3)
        plain = llm.generate(PROMPT, max_tokens=TOKENS, seed=SEED, top_k=4, num_draft_tokens=0)
    print(f"with the drafter:    {fast.text!r}")
    print(f"without the drafter: {plain.text!r}")
    spec = fast.spec
    print(
        f"{spec.accepted} of {spec.drafted} drafts accepted, {spec.target_forwards} target passes "
        f"for {len(fast.token_ids) - 1} tokens (plain: {plain.spec.target_forwards})"
    )
    same = fast.token_ids == plain.token_ids
    print(f"same text without the drafter: {'yes' if same else 'no'}")
    return 0 if same else 3


if __name__ == "__main__":
    sys.exit(main())
