"""Detection: what is written about a scan, where, and what is kept when `detect` ends early."""
