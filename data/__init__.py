"""Public corpora: one module each, from the published archive or a local copy to manifests."""
