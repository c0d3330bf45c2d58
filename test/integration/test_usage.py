"""What sandboxes use and used, by the API and the command line."""

import csv
import io
import itertools
import json
import os
import re
import signal
import time
import unittest

import grpc

import daemons
import scenario
import stubs
from scenario import create, error_of
from stubs import key_service, usage_service

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

    def test_what_runs_is_told_with_what_it_used_since_it_started(self):
        made = self.sandbox()
        scenario.execute(client, made.sandbox_id, "sum(range(20_000_000))")
        run = client.executions.Execute(scenario.request(made.sandbox_id, "import time\ntime.sleep(600)"), timeout=120 * daemons.PATIENCE)
        self.addCleanup(run.cancel)
        scenario.fold_until(run, lambda run: run.started)
        for response in watch(made.sandbox_id):
            sandbox, = response.sandboxes
            if sandbox.executions and sandbox.executions[0].usage.wall_time.ToMicroseconds() > 200_000:
                break
        running_now, = sandbox.executions
        self.assertLess(running_now.usage.cpu_time.ToMicroseconds(), sandbox.usage.total.cpu_time.ToMicroseconds() / 2)
        self.assertGreater(running_now.memory_bytes, 1 << 20)
        self.assertGreater(sandbox.usage.memory_bytes, 1 << 20)
        self.assertGreater(sandbox.usage.total.wall_time.ToMicroseconds(), running_now.usage.wall_time.ToMicroseconds())

    def test_rates_are_those_of_the_machine(self):
        made = self.sandbox(limits={"cpu_millis": 1000})
        run = client.executions.Execute(scenario.request(made.sandbox_id, "while True: pass"), timeout=120 * daemons.PATIENCE)
        self.addCleanup(run.cancel)
        scenario.fold_until(run, lambda run: run.started)
        ran = daemons.hotcell(running, "top", "--once", "--period", "500ms", "-o", "json", made.sandbox_id)
        shown, = json.loads(ran.stdout)["sandboxes"]
        self.assertGreater(shown["cpus"], 0.05)  # the machine may be busy
        self.assertLess(shown["cpus"], 1.3)
        self.assertAlmostEqual(shown["cpus"], shown["executions"][0]["cpus"], delta=0.2)

    def test_rates_are_right_also_if_the_runtime_is_late(self):
        made = self.sandbox(limits={"cpu_millis": 1000})
        run = client.executions.Execute(scenario.request(made.sandbox_id, "while True: pass"), timeout=120 * daemons.PATIENCE)
        self.addCleanup(run.cancel)
        scenario.fold_until(run, lambda run: run.started)
        stream = watch(made.sandbox_id, period=0.1)
        self.addCleanup(stream.cancel)
        told = [next(stream)]
        os.kill(running.process.pid, signal.SIGSTOP)
        try:
            time.sleep(1.5)  # that late
        finally:
            os.kill(running.process.pid, signal.SIGCONT)
        told = [(each.time.ToMicroseconds(), each.sandboxes[0].usage.total) for each in told + [next(stream) for _ in range(3)]]
        for (before, used_before), (after, used) in itertools.pairwise(told):
            self.assertGreater(after, before)
            used_usec = used.cpu_time.ToMicroseconds() - used_before.cpu_time.ToMicroseconds()
            wall_usec = used.wall_time.ToMicroseconds() - used_before.wall_time.ToMicroseconds()
            self.assertLess(used_usec, 1.3 * wall_usec + 50_000)
            self.assertAlmostEqual(wall_usec, after - before, delta=1_000_000)

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


class Ledger(unittest.TestCase):
    """Two sandboxes that are over, with labels, three executions and one that failed."""

    @classmethod
    def setUpClass(cls):
        cls.before = time.time()
        cls.boxes, cls.runs = {}, {}
        for color, codes in (("red", ["sum(range(3_000_000))", "1/0"]), ("blue", ["print('x' * 1000)"])):
            box = create(client, labels={"ledger": "test", "color": color}).sandbox_id
            cls.runs[color] = [scenario.execute(client, box, code) for code in codes]
            scenario.delete(client, box)
            cls.boxes[color] = box

    def get(self, **fields):
        times = {name: fields.pop(name) for name in ("start_time", "end_time") if name in fields}
        message = usage_service.GetUsageRequest(**fields)
        for name, value in times.items():
            getattr(message, name).FromMicroseconds(round(value * 1e6))
        return client.usage.GetUsage(message, timeout=60 * daemons.PATIENCE)

    def pages(self, **fields):
        answers = [self.get(**fields)]
        while answers[-1].next_page_token:
            answers.append(self.get(page_token=answers[-1].next_page_token, **fields))
        return answers

    def test_records_of_a_sandbox_are_all_that_it_used(self):
        for color, box in self.boxes.items():
            answer = self.get(sandbox_id=box)
            kinds = [usage_service.UsageRecordType.Name(each.type).removeprefix("USAGE_RECORD_TYPE_") for each in answer.records]
            self.assertEqual([each.sequence for each in answer.records], list(range(1, len(answer.records) + 1)))
            self.assertEqual((kinds[-1], kinds.count("EXECUTION")), ("SANDBOX_END", len(self.runs[color])))
            self.assertEqual(answer.records_total, len(answer.records))
            total = scenario.get(client, box).usage.total
            for name in ("cpu_time", "cpu_user_time", "cpu_system_time"):
                added = sum(getattr(each.usage, name).ToMicroseconds() for each in answer.records)
                self.assertEqual(added, getattr(answer.sums, name).ToMicroseconds())
                self.assertEqual(added, getattr(total, name).ToMicroseconds())
            self.assertGreater(answer.sums.cpu_time.ToMicroseconds(), 1000)
            self.assertEqual(answer.sums.throttled_periods, total.throttled_periods)
            self.assertEqual(set(answer.sums.missing), set(total.missing))

    def test_an_execution_has_the_record_that_its_end_told(self):
        for run in self.runs["red"]:
            answer = self.get(execution_id=run.execution_id)
            record, = answer.records
            self.assertEqual((record.sandbox_id, record.context_id, record.owner), (run.sandbox_id, run.context_id, "uid:0"))
            self.assertEqual((record.outcome, record.cause, record.usage.cpu_time), (run.ended.outcome, run.ended.cause, run.ended.usage.cpu_time))
            for usage in (record.usage, answer.sums):
                self.assertEqual(set(usage.missing), set(run.ended.usage.missing) - {"throttled_periods", "throttled_time"})

    def test_the_parts_of_cpu_time_add_up_to_it_in_each_record(self):
        for record in self.get(labels={"ledger": "test"}, page_size=1000).records:
            usage = record.usage
            self.assertEqual(usage.cpu_user_time.ToMicroseconds() + usage.cpu_system_time.ToMicroseconds(), usage.cpu_time.ToMicroseconds())

    def test_pages_are_the_whole(self):
        whole = self.get(labels={"ledger": "test"}, page_size=1000)
        pages = self.pages(labels={"ledger": "test"}, page_size=1)
        self.assertEqual([record for page in pages for record in page.records], list(whole.records))
        self.assertLessEqual({len(page.records) for page in pages}, {0, 1})
        self.assertEqual(pages[0].sums, whole.sums)
        self.assertFalse(pages[1].HasField("sums"))
        tokens = [int(page.next_page_token.split(".")[2]) for page in pages[:-1]]
        self.assertGreater(min(tokens), self.before * 1e6)  # times; numbers of rows would tell what others do
        self.assertEqual(error_of(lambda timeout: self.get(page_token=pages[0].next_page_token, page_size=1)).code(), INVALID)

    def test_filters_leave_out_the_others(self):
        found = self.get(labels={"ledger": "test", "color": "blue"})
        self.assertEqual({each.sandbox_id for each in found.records}, {self.boxes["blue"]})
        self.assertEqual(found.sums.stdout_bytes, 1001)
        self.assertEqual(self.get(labels={"color": "green"}).records_total, 0)
        self.assertEqual(self.get(sandbox_id=self.boxes["red"], end_time=self.before).records_total, 0)
        self.assertEqual(self.get(sandbox_id=self.boxes["red"], start_time=self.before).records_total,
                         self.get(sandbox_id=self.boxes["red"]).records_total)
        self.assertEqual(self.get(sandbox_id=self.boxes["red"], start_time=time.time() + 60).records_total, 0)

    def test_ids_of_nothing_are_not_found(self):
        for field, reason in (("sandbox_id", "SANDBOX_NOT_FOUND"), ("execution_id", "EXECUTION_NOT_FOUND")):
            error = error_of(lambda timeout, field=field: self.get(**{field: field[:3] + "-" + "a" * 26}))
            self.assertEqual((error.code(), stubs.reason(error)), (NOT_FOUND, reason))
        error = error_of(lambda timeout: self.get(owner="key-zzz"))
        self.assertEqual((error.code(), stubs.reason(error)), (NOT_FOUND, "KEY_NOT_FOUND"))
        self.assertEqual(self.get(owner="uid:77").records_total, 0)
        key = client.keys.CreateKey(key_service.CreateKeyRequest(name="unused"), timeout=60 * daemons.PATIENCE).key
        client.keys.RevokeKey(key_service.RevokeKeyRequest(key_id=key.key_id), timeout=60 * daemons.PATIENCE)
        self.assertEqual(self.get(owner=key.key_id).records_total, 0)
        error = error_of(lambda timeout: self.get(sandbox_id=self.boxes["blue"], execution_id=self.runs["red"][0].execution_id))
        self.assertEqual(stubs.reason(error), "EXECUTION_NOT_FOUND")
        error = error_of(lambda timeout: self.get(owner="ci"))
        self.assertEqual((error.code(), stubs.error_details(error)["BadRequest"].field_violations[0].field), (INVALID, "owner"))
        ran = daemons.hotcell(running, "usage", "-l", "color=green")
        self.assertEqual((ran.returncode, ran.stderr), (0, b"hotcell: usage: no record of the ledger fits\n"))

    def test_what_lives_tells_until_when_its_records_are_complete(self):
        self.assertFalse(self.get(labels={"ledger": "test"}).HasField("complete_until"))
        made = create(client)
        self.addCleanup(scenario.delete, client, made.sandbox_id)
        answer = self.get(sandbox_id=made.sandbox_id)
        self.assertGreaterEqual(answer.complete_until.ToMicroseconds(), made.create_time.ToMicroseconds())
        run = client.executions.Execute(scenario.request(made.sandbox_id, "import time\ntime.sleep(600)"), timeout=120 * daemons.PATIENCE)
        started = scenario.fold_until(run, lambda run: run.started)
        answer = self.get(execution_id=started.execution_id)
        self.assertEqual((answer.records_total, answer.HasField("complete_until")), (0, True))
        run.cancel()
        scenario.execute(client, made.sandbox_id, "x = bytearray(50_000_000)", context_id=started.context_id)
        sums = self.get(sandbox_id=made.sandbox_id).sums
        self.assertLessEqual(sums.memory_mean_bytes, sums.memory_peak_bytes)

    def test_the_export_adds_up_to_the_sums(self):
        sums = self.get(labels={"ledger": "test"}).sums
        ran = daemons.hotcell(running, "usage", "export", "-l", "ledger=test")
        self.assertEqual((ran.returncode, ran.stderr), (0, b""))
        rows = list(csv.DictReader(io.StringIO(ran.stdout.decode(), newline=""), strict=True))
        self.assertEqual(sum(int(row["cpu_usec"]) for row in rows), sums.cpu_time.ToMicroseconds())
        self.assertEqual(sum(int(row["stdout_bytes"]) for row in rows), sums.stdout_bytes)
        self.assertEqual({row["sandbox_id"] for row in rows}, set(self.boxes.values()))
        ran = daemons.hotcell(running, "usage", "-o", "json", self.boxes["blue"])
        self.assertEqual(json.loads(ran.stdout)["sums"]["stdout_bytes"], 1001)


if __name__ == "__main__":
    unittest.main()
