"""Ways of learning, each a file that reads like its paper."""
