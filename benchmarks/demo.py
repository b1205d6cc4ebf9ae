"""How long a command takes and how much memory its whole process tree holds: by default `make demo`.

    python benchmarks/demo.py [COMMAND ...]        Linux; needs nothing but Python

Memory is the proportional set size (PSS) summed over the tree, looked at twice a second: pages that processes share
count once. The command's own output goes to stderr. Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def tree_pss(process: int) -> int:
    """PSS in KiB of a process and all below it; 0 for one that has ended."""
    folder = Path("/proc") / str(process)
    try:
        lines = (folder / "smaps_rollup").read_text().splitlines()
        children = (folder / "task" / str(process) / "children").read_text().split()
    except OSError:
        return 0
    own = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return own + sum(tree_pss(int(child)) for child in children)


def main() -> int:
    """Run the command, watch it, print one JSON line; its exit status."""
    command = sys.argv[1:] or ["make", "demo"]
    began, peak, peak_at = time.monotonic(), 0, 0.0
    with subprocess.Popen(command, stdout=sys.stderr) as process:
        while process.poll() is None:
            now = tree_pss(process.pid)
            if now > peak:
                peak, peak_at = now, time.monotonic() - began
            time.sleep(0.5)
    seconds = time.monotonic() - began
    print(
        json.dumps(
            {
                "command": command,
                "seconds": round(seconds, 1),
                "peak_mib": peak // 1024,
                "peak_at_seconds": round(peak_at, 1),
                "status": process.returncode,
                "cores": os.cpu_count(),
            }
        )
    )
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
