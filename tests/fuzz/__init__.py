"""Damaged and hostile inputs by the thousand: `python -m tests.fuzz --count 10000 --seed 1`."""
