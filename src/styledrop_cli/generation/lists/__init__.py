"""What a person writes to draw many pictures: lists of prompts and of assets, wildcards, patterns for file names.

Standard library only, so that a command can refuse a wrong one at once.
"""
