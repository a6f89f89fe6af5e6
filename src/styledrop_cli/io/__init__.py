"""Files: how they are read and written, whatever they are about."""
