"""The HTTP server: OpenAI's wire format over one engine."""
