"""Clients under load, several to a process: `load_clients.py TARGET N_CLIENTS N_CELLS FIRST`.

Each client has a connection, a sandbox and a thread of its own, and asks one cell after the other. Prints `ready` when all interpreters
have started, waits for a line on standard input, then prints one line of JSON: for each client the milliseconds of its cells, and what
came back wrong.
"""

import json
import secrets
import sys
import threading
import time

import scenario
import stubs

WARM_UP = 3


class LoadClient:
    """One client with its sandbox."""

    def __init__(self, target, number):
        self.number = number
        self.secret = secrets.token_hex(8)
        self.client = stubs.Client(target)
        self.took_msec = []
        self.wrong = []
        self.sandbox_id = None

    def start(self):
        """Makes its sandbox and starts the interpreter, which remembers a secret of its own."""
        made = scenario.create(self.client, memory=256 * scenario.MIB, limits={"disk_bytes": 64 * scenario.MIB})
        self.sandbox_id = made.sandbox_id
        self._check(f"n = 0; me = '{self.secret}'", None, b"")
        for _ in range(WARM_UP):
            self._check("me", repr(self.secret), b"")

    def _check(self, code, result, output):
        run = scenario.execute(self.client, self.sandbox_id, code)
        if (run.outcome, run.text, run.stdout, run.sandbox_id) != ("OK", result, output, self.sandbox_id):
            self.wrong.append(f"client {self.number}, `{code}`: {run.outcome}, {run.text}, {run.stdout!r} in {run.sandbox_id}")

    def cells(self, n_cells):
        """Each answer holds the sandbox's secret, the question's own, and how many cells ran there."""
        for i in range(1, n_cells + 1):
            own = secrets.token_hex(8)
            start = time.monotonic()
            self._check(f"n += 1; print(me, '{own}'); (me, '{own}', n)", repr((self.secret, own, i)), f"{self.secret} {own}\n".encode())
            self.took_msec.append((time.monotonic() - start) * 1000)

    def stop(self):
        if self.sandbox_id:
            scenario.delete(self.client, self.sandbox_id)
        self.client.__exit__()


def each(function, clients):
    """Runs it for all at once. What one raises is said by that client."""

    def guarded(one):
        try:
            function(one)
        except Exception as error:  # pylint: disable=broad-exception-caught
            one.wrong.append(f"client {one.number}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=guarded, args=(one,)) for one in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(target, n_clients, n_cells, first):
    clients = [LoadClient(target, int(first) + i) for i in range(int(n_clients))]
    each(LoadClient.start, clients)
    print("ready", flush=True)
    sys.stdin.readline()
    each(lambda one: one.cells(int(n_cells)), clients)
    print(json.dumps([{"client": one.number, "msec": one.took_msec, "wrong": one.wrong} for one in clients]), flush=True)
    each(LoadClient.stop, clients)


if __name__ == "__main__":
    main(*sys.argv[1:])
