"""Language models: n-gram models and recurrent networks, and their scores of sentences."""
