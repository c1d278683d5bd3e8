"""A run on disk: its directory, journal, lock and files."""
