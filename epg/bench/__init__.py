"""What this machine gives: lifetimes over the limit of physics, and the farm without lifetimes."""
