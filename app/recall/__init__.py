"""What the gateway remembers by meaning: the built-in embedder; later the index, the cache and documents."""
