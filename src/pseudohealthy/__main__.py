"""The program: parse, run one command, turn what can go wrong into one line and an exit code."""

from __future__ import annotations

import atexit
import os
import sys

from pseudohealthy.errors import INTERRUPTED


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code of the contract."""
    from pseudohealthy.errors import INTERNAL, RESOURCE, USAGE, Fault
    from pseudohealthy.progress import say_error
    from pseudohealthy.registry import at_fault, broken

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        from pseudohealthy.cli import parse

        code = parse(arguments).start()
    except Fault as fault:
        if debug:
            raise
        say_error(fault)
        code = fault.exit
    except KeyboardInterrupt as stop:
        say_error(f"error[INTERRUPTED]: {str(stop) or 'stopped; finished files are kept'}")
        code = INTERRUPTED
    except BrokenPipeError:
        code = 0
    except MemoryError:
        if debug:
            raise
        say_error(
            "error[OUT_OF_MEMORY]: not enough memory; use smaller inputs or a machine with more"
        )
        code = RESOURCE
    except SystemExit as stop:  # the parser's own: --help (0), --version (0) or wrong usage
        code = stop.code if isinstance(stop.code, int) else USAGE
    except Exception as error:
        if debug:
            raise
        first = (str(error).splitlines() or [""])[0][:200]
        if origin := at_fault(error):
            say_error(broken(origin.name, error))
            return USAGE
        say_error(
            f"error[INTERNAL]: {type(error).__name__}: {first}; a bug: run again with --debug and"
            " report it"
        )
        code = INTERNAL
    return code


def run() -> None:
    """Entry point of the installed program. SIGTERM ends it as Ctrl-C does, from the first import
    on.

    With --debug a traceback is shown, and the exit code stays the contract's.
    """
    from pseudohealthy.signals import STOP

    code = INTERRUPTED
    try:
        with STOP:
            try:
                code = main()
            finally:
                STOP.leave()
    except KeyboardInterrupt:  # before there was a command, or after it
        print("error[INTERRUPTED]: stopped", file=sys.stderr)
    except Exception as error:
        import traceback

        traceback.print_exc()
        code = getattr(error, "exit", 1)
    if code == INTERRUPTED:
        end(code)
    sys.exit(code)


def end(code: int) -> None:
    """Leave with this exit code: after an interruption Python may leave by the signal instead."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
