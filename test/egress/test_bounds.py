"""Egress events are kept within the bounds that the server was given, whichever is reached first."""

import unittest

import daemons
import scenario
import stubs
from daemons import wait_until
from stubs import egress_service

N_DENIED = 200


class Bounds(unittest.TestCase):
    def newest(self, client, sandbox_id):
        request = egress_service.ListEgressEventsRequest(sandbox_id=sandbox_id, page_size=1000)
        return [event.port for event in client.egress.ListEgressEvents(request, timeout=60 * daemons.PATIENCE).events]

    def check(self, arguments, n_max):
        """Of more denials than that, the newest @n_max at most are soon left, and the last one is among them."""
        running = self.enterContext(daemons.Daemons(server_arguments=arguments, nameservers=["127.0.0.1"]))
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
            ports = self.newest(client, sandbox_id)
            return ports and ports[-1] == N_DENIED and len(ports) <= n_max
        wait_until(is_kept, f"at most {n_max} events are left")

    def test_as_many_as_may_be(self):
        self.check(["--retention-egress-events=10", "--retention-egress-events-size=64KiB"], 10 + 20)

    def test_as_large_as_may_be(self):
        self.check(["--retention-egress-events-size=16KiB"], 60)


if __name__ == "__main__":
    unittest.main()
