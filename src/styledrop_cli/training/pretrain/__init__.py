"""Training a base model, a part at a time: `run` trains one, `stages` all of them in turn."""
