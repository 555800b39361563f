"""Corpora: manifests, importers, splits, checks, shards, batches."""
