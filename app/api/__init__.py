"""HTTP towards clients: thin endpoints that parse, call the gateway and render."""
