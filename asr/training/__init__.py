"""Training: recipe, loop, checkpoints."""
