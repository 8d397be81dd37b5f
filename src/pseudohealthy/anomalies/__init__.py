"""Synthetic anomalies."""
