"""Conversations that the gateway keeps: what was said, by whom it was answered, and how much of it fits a window."""
