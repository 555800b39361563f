"""Experiments on recurrent networks: gradients over time, variants at one budget."""
