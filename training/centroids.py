"""The centroid head of `tiny`'s drafter: equal clusters of the vocabulary, and their centroids.

At run time the head scores the centroids, takes the best few clusters and scores only their tokens
(model.md §4 of the Gemma 4 reference: `masked_embedding`). The clusters come from a k-means of the
head's rows with equal sizes; the centroids are then fitted to the drafter's own states, so that the
cluster of the token that the whole head would choose ranks high.
"""

from collections.abc import Iterator

import numpy as np
import torch

from training import corpus
from training.drafter import BATCH_TOKENS, Anchors, counted

ROUNDS = 20
FIT_RATE = 1e-2


def attach(
    drafter: torch.nn.Module,
    target: torch.nn.Module,
    source: Iterator[corpus.Text],
    steps: int,
    seed: int,
) -> float:
    """Fill the drafter's masked embedding; returns the share of choices that it keeps."""
    head = drafter.masked_embedding
    rows = drafter.lm_head.weight.detach()
    clusters = equal_clusters(rows.numpy(), head.num_centroids, seed)
    order = np.argsort(clusters, kind="stable")
    head.token_ordering.copy_(torch.from_numpy(order))
    cluster_of = torch.from_numpy(clusters)
    with torch.no_grad():
        means = torch.stack([rows[cluster_of == c].mean(dim=0) for c in range(head.num_centroids)])
        head.centroids.weight.copy_(means)
    optimizer = torch.optim.AdamW(head.centroids.parameters(), lr=FIT_RATE, weight_decay=0.0)
    batches = corpus.batches(source, BATCH_TOKENS)
    kept = []
    for at in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = FIT_RATE * (1.0 - at / steps)
        ids, weights = (torch.from_numpy(array) for array in next(batches))
        loss, share = _fit(drafter, Anchors(target, ids), weights, cluster_of)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        kept.append(share)
    return float(np.mean(kept[-20:]))


def _fit(
    drafter: torch.nn.Module, anchors: Anchors, weights: torch.Tensor, cluster_of: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Cross entropy of the right cluster under the centroids, and the share among the best few."""
    head = drafter.masked_embedding
    total, shares = torch.zeros(()), []
    with torch.no_grad():
        runs = list(anchors.steps(drafter))
    for step, (logits, states) in enumerate(runs):
        counts = counted(weights, step)
        wanted = cluster_of[logits.argmax(dim=-1)]
        scores = head.centroids(states)
        losses = torch.nn.functional.cross_entropy(
            scores.flatten(0, 1), wanted.flatten(), reduction="none"
        )
        total = total + (losses * counts.flatten()).sum() / counts.sum()
        best = scores.topk(head.centroid_intermediate_top_k, dim=-1).indices
        hits = (best == wanted[..., None]).any(dim=-1).float()
        shares.append(((hits * counts).sum() / counts.sum()).item())
    return total, float(np.mean(shares))


def equal_clusters(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Cluster number [V] of each row [V, h]; all clusters have V / count rows.

    Lloyd's rounds where each row, the most decided first, takes the nearest centre with room left.
    """
    draw = np.random.RandomState(seed)
    room = len(rows) // count
    centres = rows[draw.choice(len(rows), count, replace=False)]
    clusters = np.zeros(len(rows), np.int64)
    for _ in range(ROUNDS):
        distances = ((rows[:, None] - centres[None]) ** 2).sum(axis=-1)
        two = np.partition(distances, 1, axis=1)[:, :2]
        left = np.full(count, room)
        for row in np.argsort(two[:, 0] - two[:, 1]):
            choice = np.argmin(np.where(left > 0, distances[row], np.inf))
            clusters[row] = choice
            left[choice] -= 1
        centres = np.stack([rows[clusters == c].mean(axis=0) for c in range(count)])
    return clusters
