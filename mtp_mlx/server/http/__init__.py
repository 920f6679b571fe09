"""HTTP: who is let in, what is where, how a reply goes out."""
