"""On a host that has no way out by IPv6, names that have addresses of both families lead to those of IPv4."""

import unittest

import scene as scenes
from scene import allow

NAMED = {4: "93.184.216.40", 6: "2606:2800:220:1::40"}
scene = scenes.Scene()


def setUpModule():
    scene.enter()
    scene.world.set_zones({"allowed.test": {"A": [NAMED[4]], "AAAA": [NAMED[6]]}})


class WithoutIPv6(unittest.TestCase):
    def setUp(self):
        self.sandbox = scene.create(allow("allowed.test"))

    def fetch(self):
        return scene.inside(self.sandbox, "fetch('http://allowed.test/')")

    def addresses(self):
        return scene.inside(self.sandbox, "sorted({to[4][0] for to in socket.getaddrinfo('allowed.test', 80)})")

    def test_names_lead_to_what_can_be_reached(self):
        self.assertEqual(self.addresses(), [NAMED[6], NAMED[4]])
        scene.world.home.run("ip", "-6", "route", "del", "default")
        try:
            self.assertEqual(self.addresses(), [NAMED[4]])
            self.assertEqual(self.fetch(), "200")
            self.assertEqual([event.type for event in scene.log(self.sandbox) if event.error], [])
        finally:
            scene.world.home.run("ip", "-6", "route", "add", "default", "via", "2606:2800:21f::1", "dev", "world0")
        self.assertEqual(self.addresses(), [NAMED[6], NAMED[4]])
        self.assertEqual(self.fetch(), "200")


if __name__ == "__main__":
    unittest.main()
