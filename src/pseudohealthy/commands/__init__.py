"""The commands: each is a dataclass whose fields are its arguments and whose `run` does the work.

Nothing heavy is imported here: `pseudohealthy --help` must answer at once.
"""
