"""Run a command where no network exists: `python offline.py COMMAND ...`, in a namespace of its own.

The loopback interface is brought up, because Prefect's embedded server lives there; there is no other interface.
"""

import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


def main() -> None:
    """Enter a new user and network namespace, raise `lo`, become the command."""
    uid, gid = os.getuid(), os.getgid()
    libc_unshare(0x10000000 | 0x40000000)  # CLONE_NEWUSER | CLONE_NEWNET
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(probe, SIOCGIFFLAGS, request))
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
    interfaces = sorted(name for _, name in socket.if_nameindex())
    if interfaces != ["lo"]:
        sys.exit(f"expected no interface but lo, found {interfaces}")
    os.execvp(sys.argv[1], sys.argv[1:])


def libc_unshare(flags: int) -> None:
    """unshare(2); Python has it as os.unshare from 3.12 on."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        sys.exit(f"unshare refused: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
