"""Egress events are kept within the bounds that the server was given, whichever is reached first."""

import unittest

import daemons
import scenario
import stubs
from daemons import wait_until
from stubs import egress_service

N_DENIED = 200
# What was added since the last pruning is not worth another, so that more may be left than the bound; without it there are more than so many.
N_LEFT = 100


class Bounds(unittest.TestCase):
    def ports(self, client, sandbox_id):
        request = egress_service.ListEgressEventsRequest(sandbox_id=sandbox_id, page_size=1000)
        return [event.port for event in client.egress.ListEgressEvents(request, timeout=60 * daemons.PATIENCE).events]

    def check(self, *arguments):
        """The oldest are soon gone, and the last one is there."""
        running = self.enterContext(daemons.Daemons(server_arguments=list(arguments), nameservers=["127.0.0.1"]))
        client = self.enterContext(stubs.Client(running.target))
        sandbox_id = scenario.create(client).sandbox_id
        scenario.execute(client, sandbox_id, f"""
import socket, time
for port in range(1, {N_DENIED} + 1):
    with socket.socket() as s:
        try: s.connect(("192.0.2.1", port))
        except PermissionError: pass
    time.sleep(0.025)  # of events there may be 50 a second""")

        def is_kept():
            ports = self.ports(client, sandbox_id)
            return ports and ports[-1] == N_DENIED and len(ports) <= N_LEFT
        wait_until(is_kept, f"of {N_DENIED} events at most {N_LEFT} are left")

    def test_as_many_as_may_be(self):
        # Bytes tell when it is time to look, and hold some 160 of them.
        self.check("--retention-egress-events=10", "--retention-egress-events-size=64KiB")

    def test_as_large_as_may_be(self):
        self.check("--retention-egress-events-size=16KiB")


if __name__ == "__main__":
    unittest.main()
