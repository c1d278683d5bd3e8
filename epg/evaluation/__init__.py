"""What a loss is worth: baselines, evaluation, statistics, pictures."""
