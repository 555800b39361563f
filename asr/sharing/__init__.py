"""Models as they are passed on: their facts, cards, packages and the hub. Nothing imports torch."""
