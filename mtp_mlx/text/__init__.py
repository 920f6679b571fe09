"""Text in and out: tokenizer, chat template, and the transcript of one reply. No MLX here."""
