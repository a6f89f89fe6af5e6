"""Measuring a base model against the truth: one-picture adaptation, on styles that are held out of all training.

A held-out style (``families``) exists for every thing, so it is known what the thing asked for really looks like in
it. For each style, and each of a few references (one picture of one thing), ``rows`` trains an adapter and draws other
things; two judges that are trained here (``judges``, on the ``renders`` of the ``art``) say what came out, beside what
the base draws without it and what the style's own artist drew. ``run`` is the whole run, ``comparisons`` what it
compares, ``measures`` and ``report`` what comes out.
"""
