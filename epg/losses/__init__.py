"""Losses behind one interface: what is evolved, and what it is compared with."""
