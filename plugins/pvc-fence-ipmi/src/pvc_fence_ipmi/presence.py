"""Why a BMC is silent: RMCP's presence ping (ASF 2.0, section 3.2.4.3), which needs no session.

ipmitool ignores what the network says of its packets; a connected socket tells.
"""

import errno
import socket
from typing import Final

_PING: Final = bytes.fromhex("0600ff06 000011be 80000000".replace(" ", ""))
"""RMCP 1.0 without acknowledgement, class ASF; IANA number of ASF, presence ping, tag 0, no data."""
_WAIT_S: Final = 1.0


def why_silent(address: str, port: int) -> str:
    """Return in words what the network says of a BMC that has not answered ipmitool.  Takes 1 s at most."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as connection:
            connection.settimeout(_WAIT_S)
            connection.connect(place)
            connection.send(_PING)
            connection.recv(512)
    except TimeoutError:
        return "nothing comes back: it has no power or no network, or it hangs"
    except ConnectionRefusedError:
        return f"its host says that nothing listens on UDP port {port}: IPMI over LAN is switched off there"
    except OSError as error:
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            return f"the network says: {error.strerror}"
        return f"a ping to it failed: {error.strerror or error}"
    return "it answers pings, but no IPMI request: it is overloaded, or IPMI over LAN is switched off"
