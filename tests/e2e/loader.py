"""Requests at a steady pace to one address, each answered, refused, or hanging.

Arguments: the address, the port, requests a second, and the seconds after which a request hangs. A line is
printed for each request, as ``asker`` prints it. A request begins when it is due, whether or not earlier ones were
answered: else one that hangs would keep others from being made.
"""

from __future__ import annotations

import http.client
import os
import sys
import threading
import time

#: As many at a time as can hang.
THREADS_PER_REQUEST_S = 1.2


def request(address: str, port: int, patience_s: float) -> str:
    """Return the outcome of one request."""
    connection = http.client.HTTPConnection(address, port, timeout=patience_s)
    try:
        connection.request("GET", "/")
        status = connection.getresponse().status
    except TimeoutError:
        return "hangs"
    except (OSError, http.client.HTTPException) as error:
        return f"failed: {error}"
    finally:
        connection.close()
    return "ok" if status == 200 else f"failed: status {status}"


def go_on(first_s: float, step_s: float, patience_s: float, address: str, port: int) -> None:
    """Make the requests of one thread for ever."""
    due_s = first_s
    while True:
        threading.Event().wait(max(0.0, due_s - time.monotonic()))
        began = time.monotonic()
        outcome = request(address, port, patience_s)
        took_ms = round((time.monotonic() - began) * 1000)
        # One write: threads must not meet within a line.
        os.write(1, f"{address}\t{outcome}\t{took_ms}\t{began:.3f}\n".encode())
        due_s = max(due_s + step_s, time.monotonic())


if __name__ == "__main__":
    address, port, per_s, patience_s = sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:5])
    count = round(per_s * patience_s * THREADS_PER_REQUEST_S)
    now_s = time.monotonic()
    for number in range(count):
        args = (now_s + number / per_s, count / per_s, patience_s, address, port)
        threading.Thread(target=go_on, args=args, daemon=True).start()
    sys.stdin.read()  # until whoever started it hangs up
