"""A runtime whose wall was taken away, in part or as a whole, makes no sandbox and says why."""

import json
import os
import pathlib
import subprocess
import unittest

import daemons
import scenario
import stubs
from stubs import sandbox_service

NAMESERVERS = ("127.0.0.1",)  # nobody is asked there


def bpftool(*words):
    return subprocess.run(["bpftool", "-j", *map(str, words)], check=True, capture_output=True, text=True).stdout


class Proof(unittest.TestCase):
    """With and without hotcell-egress, which looks, too."""

    def parent(self):
        """The group that the programs are attached to."""
        found = [path for path in map(pathlib.Path, self.running.cgroups())
                 if path.name == self.running.instance() and (path / "cgroup.type").exists()]
        self.assertEqual(len(found), 1)
        return found[0]

    def detach(self, is_chosen):
        """From the test's own group."""
        group = self.parent()
        chosen = [program for program in json.loads(bpftool("cgroup", "show", group)) if is_chosen(program["attach_type"])]
        for program in chosen:
            bpftool("cgroup", "detach", group, program["attach_type"], "id", program["id"])
        self.assertTrue(chosen)

    def begin(self, nameservers):
        self.running = self.enterContext(daemons.Daemons(nameservers=nameservers))
        self.client = self.enterContext(stubs.Client(self.running.target))
        scenario.delete(self.client, scenario.create(self.client).sandbox_id)

    def check_refused(self, detail):
        """Twice: before doctor has looked, and after it."""
        for _ in range(2):
            error = scenario.error_of(self.client.sandboxes.CreateSandbox, sandbox_service.CreateSandboxRequest(spec=scenario.spec()))
            self.assertEqual(stubs.reason(error), "EGRESS_UNAVAILABLE", error.details())
            ran = daemons.hotcell(self.running, "doctor")
            self.assertNotEqual(ran.returncode, 0)
            line = next(line for line in ran.stdout.decode().splitlines() if line.startswith("egress "))
            self.assertRegex(line, rf"^egress +NO +{detail}")
        left = [path for path in self.running.cgroups() if os.path.basename(path).startswith("sandbox-")]
        self.assertEqual(left, [])

    def check_each(self, nameservers):
        self.begin(nameservers)
        self.detach(lambda kind: "6" in kind)
        self.check_refused("connect")
        self.detach(lambda kind: True)
        self.check_refused("connect")

    def test_without_the_wall_nothing_is_made(self):
        self.check_each(())

    def test_nor_with_hotcell_egress(self):
        self.check_each(NAMESERVERS)


if __name__ == "__main__":
    unittest.main()
