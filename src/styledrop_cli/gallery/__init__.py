"""A local page on which a person picks pictures, sees the training go on and asks for another round."""

from styledrop_cli.gallery.choices import Choices
from styledrop_cli.gallery.server import Candidate, Gallery

__all__ = ["Candidate", "Choices", "Gallery"]
