"""Feedback rounds (StyleDrop, 3.3): a pool is drawn, CLIP or a person picks, and the picks are trained on."""
