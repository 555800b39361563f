"""Log-probabilities to text: greedy and beam search, language models, confidence."""
