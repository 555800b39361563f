"""`asr new`: a project from a folder of recordings."""
