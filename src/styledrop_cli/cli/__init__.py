"""The commands: each reads its options, builds settings, calls one function and shows the result.

Only Typer, Rich and the modules without torch are imported at the top of these files; whatever
pulls in torch is imported inside a command's body, after the cheap checks, so that `--help` and
mistakes in the options answer at once.
"""
