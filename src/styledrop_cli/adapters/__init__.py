"""Adapters: their file, the pictures they are trained on, merges of several, and LoRA files of other tools."""
