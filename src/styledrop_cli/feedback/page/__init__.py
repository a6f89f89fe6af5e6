"""A local page on which a person picks pictures, sees the training go on and asks for another round."""

from styledrop_cli.feedback.page.choices import Choices
from styledrop_cli.feedback.page.server import Candidate, Gallery

__all__ = ["Candidate", "Choices", "Gallery"]
