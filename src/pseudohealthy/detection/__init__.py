"""Detection: what is written about a scan, and where."""
