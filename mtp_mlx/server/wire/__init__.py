"""OpenAI's wire format without a socket: bodies read, replies written."""
