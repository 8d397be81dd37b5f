"""docs/commands.md: every command and flag, as the program itself reads them. python
tests/commands_page.py > docs/commands.md"""

from __future__ import annotations

from pseudohealthy.cli import COMMANDS
from pseudohealthy.commands.helping import page

if __name__ == "__main__":
    print(page(COMMANDS), end="")
