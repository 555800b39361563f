"""Changes to training data that keep the transcript valid."""
