"""Broken files of every kind the program reads: property tests, a coverage-guided fuzzer, and what
they once found."""
