"""The demo: a synthetic speech corpus, created and trained on in minutes."""
