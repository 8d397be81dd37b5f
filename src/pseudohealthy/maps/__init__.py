"""Anomaly maps: filters, morphology, regions."""
