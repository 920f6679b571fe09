"""Rounds of drafting and verifying for many rows. Token ids only; text and sockets live elsewhere."""
