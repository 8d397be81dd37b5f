"""What a map and a score are worth: curves, thresholds, intervals over patients, lesions."""
