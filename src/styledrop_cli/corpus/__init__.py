"""Corpora: folders of captioned pictures, and how pocket's own is drawn from cut-outs in many styles."""
