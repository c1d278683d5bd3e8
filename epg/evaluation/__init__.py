"""What ways of learning are worth: evaluation, tuning, statistics, pictures, pages."""
