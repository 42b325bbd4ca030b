"""Adapters: a codec, a place to connect to, and what is particular about each kind of server. One call, one attempt."""
