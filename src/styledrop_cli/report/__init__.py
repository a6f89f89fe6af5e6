"""A report of an adapter or of rounds: one HTML file that shows what was learnt, how good it is, and its history.

``history`` reads what there is, ``grade`` draws and scores it, ``commands`` says how to make it again, ``plots`` draws
the curves and ``page`` writes the file.
"""
