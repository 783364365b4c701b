"""What a trained method is worth: predictions, metrics, groups, effects, statistics."""
