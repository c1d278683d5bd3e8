"""The main job: what is learned across lifetimes, step by step, on any farm."""
