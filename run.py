#!/usr/bin/env python3
"""PreciseCache's commands. Each one sets up what it needs, then does its job.

    python3 run.py demo [options]           sample the bundled video model without and with the cache
    python3 run.py test [pytest args]       run every test that can run on this machine
    python3 run.py check [pytest args]      lint, check the format and the types, then run the tests
    python3 run.py graph GRAPH [options]    run a graph in API format in ComfyUI; --watch FOLDER: many
    python3 run.py bench [NAME [options]]   run a benchmark; without a name: list them all
    python3 run.py versions [options]       compare what is installed with the tested versions

Needs Python 3.10 or newer and nothing else. Everything is installed into .venv beside this
file; delete that folder to start over. demo, graph, bench NAME and versions each have their own --help.
With --verbose before the command, pip's output is shown while it installs.
"""

import os
import sys

OLDEST_PYTHON = (3, 10)


def main(arguments):
    if sys.version_info < OLDEST_PYTHON:
        print("PreciseCache needs Python 3.10 or newer; this is " + sys.version.split()[0])
        return 2
    from tools.commands import COMMANDS, call
    from tools.environment import VERBOSE

    if arguments and arguments[0] in ("-v", "--verbose"):
        arguments = arguments[1:]
        os.environ[VERBOSE] = "1"
    if arguments and arguments[0] in COMMANDS:
        return call(arguments[0], arguments[1:])
    is_asked = bool(arguments) and arguments[0] in ("-h", "--help")
    print(__doc__)
    if arguments and not is_asked:
        print(f"run.py: there is no command {arguments[0]!r}", file=sys.stderr)
    return 0 if is_asked else 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
