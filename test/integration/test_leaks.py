"""What 200 sandboxes leave behind: nothing."""

import os
import pathlib
import unittest

import daemons
import scenario
import stubs

SANDBOXES = 200
POOL = 4  # network namespaces that the runtime keeps ready


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons(runtime_arguments=[f"--netns-pool={POOL}"]))
    client = unittest.enterModuleContext(stubs.Client(running.target))


def namespaces(pids):
    """Those of the processes; one that only a descriptor keeps shows in the counts of descriptors."""
    kinds = ("mnt", "net", "user", "pid", "ipc", "uts", "cgroup")
    found = set()
    for pid in pids:
        for kind in kinds:
            try:
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
            except OSError:
                pass
    return found


def n_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def n_network_namespaces(pid):
    """Held by descriptors: the pool's, and its own."""
    links = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            pass
    return sum(link.startswith("net:") for link in links)


def rss_kib(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


def mounts(pid):
    return len(pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines())


def files():
    return sorted(str(p.relative_to(running.folder)) for p in running.folder.glob("**/*")
                  if not p.name.startswith(("hotcell.db", "log")))


def snapshot():
    daemon_pids = [running.process.pid, running.server_pid()]
    everyone = [running.process.pid, *daemons.descendants(running.process.pid)]
    return {
        "cgroups": running.cgroups(),
        "processes": len(everyone),
        "mounts": [mounts(pid) for pid in everyone],
        "host mounts": mounts(os.getpid()),
        "namespaces": len(namespaces(everyone)),
        "fds": [n_fds(pid) for pid in everyone],
        "files": files(),
        "rss": [rss_kib(pid) for pid in daemon_pids],
    }


class Leaks(unittest.TestCase):
    def one(self):
        made = scenario.create(client)
        scenario.delete(client, made.sandbox_id)

    def test_200_sandboxes_leave_nothing(self):
        # The first ones fill caches, pools and statement buffers.
        for _ in range(50):
            self.one()
        settled = self.settle()
        for _ in range(SANDBOXES):
            self.one()
        daemons.wait_until(lambda: self.settle()["cgroups"] == settled["cgroups"], "the cgroups are gone")
        daemons.wait_until(lambda: self.settle()["processes"] == settled["processes"], "the processes are gone")
        daemons.wait_until(lambda: self.settle()["namespaces"] <= settled["namespaces"], "the namespaces are gone")
        after = daemons.wait_until(lambda: (s := self.settle())["fds"] == settled["fds"] and s, "the fds are gone")
        print(f"# before {settled['fds']} fds, {settled['rss']} KiB; after {after['fds']} fds, {after['rss']} KiB")
        for name in ("mounts", "host mounts", "files"):
            self.assertEqual(after[name], settled[name], name)
        for before, now in zip(settled["rss"], after["rss"]):
            self.assertLessEqual(now - before, 1024, f"RSS {settled['rss']} -> {after['rss']} KiB")

    def test_a_sandbox_with_executions_leaves_nothing(self):
        for _ in range(3):
            self.with_cell()
        settled = self.settle()
        for _ in range(10):
            self.with_cell()
        daemons.wait_until(lambda: self.settle()["cgroups"] == settled["cgroups"], "the cgroups are gone")
        daemons.wait_until(lambda: self.settle()["processes"] == settled["processes"], "the processes are gone")
        daemons.wait_until(lambda: self.settle()["fds"] == settled["fds"], "the fds are gone")

    def with_cell(self):
        made = scenario.create(client)
        self.assertEqual(scenario.execute(client, made.sandbox_id, "1+1").text, "2")
        scenario.delete(client, made.sandbox_id)

    def settle(self):
        """A snapshot that two looks one after the other agree on, with the pool refilled."""
        def look():
            if n_network_namespaces(running.process.pid) != POOL + 1:
                return None
            first, second = snapshot(), snapshot()
            return second if {**first, "rss": 0} == {**second, "rss": 0} else None
        return daemons.wait_until(look, "two equal looks")


class Stop(unittest.TestCase):
    def test_a_stop_leaves_nothing_on_the_machine(self):
        with daemons.Daemons() as mine:
            own = stubs.Client(mine.target)
            made = scenario.create(own)
            scenario.execute(own, made.sandbox_id, "1")
            own_pids = mine.processes()
            self.assertGreaterEqual(len(own_pids), 5)
            self.assertGreater(len(mine.cgroups()), 3)
            own.channel.close()
            self.assertEqual(mine.stop(), 0, mine.log())
            for pid in own_pids:
                self.assertFalse(os.path.exists(f"/proc/{pid}"), pid)
            self.assertEqual(mine.cgroups(), set())
            self.assertFalse(mine.socket.exists())
            self.assertNotIn(str(mine.folder), pathlib.Path("/proc/self/mountinfo").read_text())


if __name__ == "__main__":
    unittest.main()
