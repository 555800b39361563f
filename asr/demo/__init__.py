"""The demo: a spoken toy corpus, made and learnt in minutes."""
