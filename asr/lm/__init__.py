"""Language models: n-grams counted from text, and what they say of a sentence."""
