"""Synthetic images and anomalies."""
