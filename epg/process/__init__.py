"""This process: who launched it, what signals ask of it, its machine and its log."""
