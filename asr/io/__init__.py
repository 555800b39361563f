"""The file system and text from outside: whole files, safe JSON and YAML, caches, paths."""
