"""The nouns every other package speaks in. Nothing here does I/O or imports another package of ours."""
