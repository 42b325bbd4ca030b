"""Fake Ollama, vLLM, Claude and OpenAI-compatible servers that speak the real wires, with delays and faults."""
