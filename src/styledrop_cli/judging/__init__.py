"""Judging: what a CLIP sees in pictures, scores against what the base alone draws, and how sure a difference is."""
