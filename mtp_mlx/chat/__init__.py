"""What a chat is made of, without a terminal: turns, files, commands, settings, Markdown."""
