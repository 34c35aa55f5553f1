"""Train the stroke transcriber on random stroke sequences."""
