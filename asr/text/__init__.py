"""Transcripts: normalisation, tokens, phones, edit distance."""
