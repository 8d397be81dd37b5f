"""From a scan to planes of one size and range, and back."""
