"""Entry points under vLLM's names."""
