"""How good a recogniser is: error counts, their uncertainty, and the report of one run."""
