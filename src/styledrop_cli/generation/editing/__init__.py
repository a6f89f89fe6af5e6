"""Given pictures changed: a part drawn anew, sides added, all of it in another style."""
