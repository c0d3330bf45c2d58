"""What sandboxes use and used, by the API and the command line."""

import json
import re
import unittest

import grpc

import daemons
import scenario
import stubs
from scenario import create, error_of
from stubs import usage_service

INVALID, NOT_FOUND, PRECONDITION = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))


def watch(sandbox_id="", period=0.1):
    message = usage_service.WatchUsageRequest(sandbox_id=sandbox_id)
    message.period.FromMilliseconds(round(period * 1000))
    return client.usage.WatchUsage(message, timeout=120 * daemons.PATIENCE)


class Watch(unittest.TestCase):
    def sandbox(self, **fields):
        made = create(client, **fields)
        self.addCleanup(scenario.delete, client, made.sandbox_id)
        return made

    def test_it_tells_of_ones_sandboxes_until_it_is_left(self):
        made = [self.sandbox(name=name) for name in ("one", "two")]
        stream = watch()
        times = []
        for response in stream:
            self.assertEqual([each.sandbox_id for each in response.sandboxes], sorted(each.sandbox_id for each in made))
            self.assertEqual({each.name for each in response.sandboxes}, {"one", "two"})
            self.assertEqual(response.sandboxes[0].limits.memory_bytes, 512 * scenario.MIB)
            times.append(response.time.ToMicroseconds())
            if len(times) == 4:
                break
        stream.cancel()
        self.assertEqual(times, sorted(set(times)))
        self.assertGreater(times[-1] - times[0], 250_000)  # three periods, of which each may begin late

    def test_a_watch_of_one_ends_with_it(self):
        made = create(client)
        stream = watch(made.sandbox_id, period=60)
        first = next(stream)
        self.assertEqual([each.sandbox_id for each in first.sandboxes], [made.sandbox_id])
        scenario.delete(client, made.sandbox_id)
        self.assertEqual(list(stream), [])  # it does not wait for the period
        error = error_of(client.usage.WatchUsage, usage_service.WatchUsageRequest(sandbox_id=made.sandbox_id))
        self.assertEqual((error.code(), stubs.reason(error)), (PRECONDITION, "SANDBOX_ENDED"))

    def test_what_it_cannot_do_is_refused_with_the_field(self):
        for period in (0.0, 0.05, 60.001, 3600):
            message = usage_service.WatchUsageRequest()
            message.period.FromMilliseconds(round(period * 1000))
            error = error_of(client.usage.WatchUsage, message)
            self.assertEqual((error.code(), stubs.reason(error)), (INVALID, "LIMIT_OUT_OF_RANGE"), period)
            self.assertEqual(stubs.error_details(error)["BadRequest"].field_violations[0].field, "period")
        error = error_of(client.usage.WatchUsage, usage_service.WatchUsageRequest(sandbox_id="sbx-" + "a" * 26))
        self.assertEqual((error.code(), stubs.reason(error)), (NOT_FOUND, "SANDBOX_NOT_FOUND"))

    def test_top_shows_them(self):
        made = self.sandbox(name="shown")
        ran = daemons.hotcell(running, "top", "--once", "--period", "100ms", "-o", "json", made.sandbox_id)
        self.assertEqual((ran.returncode, ran.stderr), (0, b""))
        shown, = json.loads(ran.stdout)["sandboxes"]
        self.assertEqual((shown["sandbox_id"], shown["name"], shown["state"]), (made.sandbox_id, "shown", "RUNNING"))
        ran = daemons.hotcell(running, "top", "--once", "--period", "100ms", "shown")
        self.assertRegex(ran.stdout.decode(), re.compile(rf"^{made.sandbox_id} +shown ", re.M))
        ran = daemons.hotcell(running, "top", "--once", "--period", "1ms")
        self.assertEqual(ran.returncode, 125)
        self.assertIn(b"period", ran.stderr)


if __name__ == "__main__":
    unittest.main()
