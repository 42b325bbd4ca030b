"""Which model: pure decisions over Cards. What only I/O can tell (health, flags) is handed in."""
