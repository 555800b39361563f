"""The file system and external text: atomic files, safe JSON and YAML, caches, paths."""
