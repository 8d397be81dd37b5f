"""Which image belongs to which patient, split and label."""
