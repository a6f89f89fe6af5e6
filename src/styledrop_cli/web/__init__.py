"""Pages that a person opens on this machine: who is let in, how they are served, and the one page that is shown."""
