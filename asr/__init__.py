"""Train your own speech recogniser."""
