"""Masking, guidance and the parallel decode loop, pure torch."""
