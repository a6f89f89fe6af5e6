"""Every reader of foreign bytes, and what tries to break it; see docs/lab/hostile_files.md."""
