"""Given pictures changed by a base and perhaps adapters: a part drawn anew, sides added, all of it in another style.

Muse, arXiv 2301.00704, 3: what is to stay goes into the network as ids, what is to be drawn as masked ones; nothing is
trained or inverted for it. A picture of any size and shape is worked on in square windows, each scaled to what the
base draws. Super-resolution has no part in it: it draws whole pictures, and would change what is to stay.
"""
