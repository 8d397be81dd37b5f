"""The version of the program, which everything that it writes names."""

__version__ = "0.1.0"
