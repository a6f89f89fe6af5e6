"""The studio: a page on this machine where everything is done that the everyday commands do, by those commands."""
