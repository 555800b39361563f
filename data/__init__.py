"""Public corpora: one module each, which converts an archive or a local copy into manifests."""
