"""Training: the one loop, an adapter on one picture (StyleDrop, 3.2), and base models from a corpus."""
