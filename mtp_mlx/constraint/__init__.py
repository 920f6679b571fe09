"""Replies that a grammar holds to their form: JSON schemas and tool calls, by llguidance."""
