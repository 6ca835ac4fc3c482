"""Count what tries to leave a network namespace without a way out: `python attempts.py FILE COMMAND ...`.

The kernel counts every packet and connection for which it has no route, whoever asked, native code and look-ups of
names included; traffic on the loopback interface has one. Writes the count to FILE and ends as the command did. To be
run where `tests/flows/offline.py` leads.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NO_ROUTE = ("IpOutNoRoutes", "Ip6OutNoRoutes")


def without_route() -> int:
    """Attempts in this namespace up to now."""
    lines = Path("/proc/self/net/snmp").read_text().splitlines()
    counters = {
        title.split(":")[0] + name: int(value)
        for title, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(title.split()[1:], values.split()[1:], strict=True)
    }
    six = Path("/proc/self/net/snmp6")
    if six.exists():  # not where IPv6 is switched off
        counters |= {name: int(value) for name, value in (line.split() for line in six.read_text().splitlines())}
    return sum(counters.get(name, 0) for name in NO_ROUTE)


def main() -> int:
    file, *command = sys.argv[1:]
    before = without_route()
    code = subprocess.run(command, check=False).returncode
    Path(file).write_text(str(without_route() - before))
    return code


if __name__ == "__main__":
    sys.exit(main())
