"""``python -m tas_sockets [-m module | script | -c code] [arguments]``: runs a Python program under the interposer.

Everything that reaches libc is carried then, C extensions included.  A private service is started when none runs.
"""

from __future__ import annotations

import sys

from tas_sockets import _exec, _paths, _service


def main() -> int:
    """Takes the program's place; returns only when that failed."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0 if len(sys.argv) > 1 else 2
    try:
        _exec.exec_program((), [sys.executable, *sys.argv[1:]])
    except (_paths.NotFoundError, _service.StartError, OSError) as e:
        print(f"tas_sockets: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
