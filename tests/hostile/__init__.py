"""Every reader of foreign bytes, and what tries to break it; see docs/hostile_files.md."""
