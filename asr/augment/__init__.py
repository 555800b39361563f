"""Changes to training data that keep its words."""
