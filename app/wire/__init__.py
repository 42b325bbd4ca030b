"""One codec per wire dialect, both directions, no I/O: bytes in, nouns of `core` out, and back."""
