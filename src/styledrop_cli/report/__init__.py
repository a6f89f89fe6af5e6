"""A report of an adapter or of rounds: one file that shows what was learnt, how good it is, and how it came about.

``story`` finds out what there is, ``grading`` draws and grades it, ``commands`` says how to make it again, ``plots``
draws the curves and ``page`` writes the file.
"""
