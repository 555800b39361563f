"""Connectionist temporal classification (Graves et al. 2006): loss and alignment."""
