"""Rounds of drafting and verifying for many rows, on token ids alone."""
