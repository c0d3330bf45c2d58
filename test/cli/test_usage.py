"""`hotcell usage` and `hotcell usage export` against a server that plays a ledger."""

import csv
import io
import json
import time
import unittest

from cli_case import CliTest, TIMEOUT
from fake_server import EXECUTION_ID, SANDBOX_ID, Refuse, execution, grpc, keys, sandboxes, usage

KEY_ID = "key-" + "k" * 26

NUMBERS = ("cpu_usec", "cpu_user_usec", "cpu_system_usec", "wall_usec", "memory_peak_bytes", "memory_byte_seconds", "rss_peak_bytes",
           "sent_bytes", "received_bytes", "stdout_bytes", "stderr_bytes", "rich_bytes", "run_queue_wait_usec", "context_switches",
           "scheduled_usec", "earlier_work_usec", "oom_kills", "throttled_periods", "throttled_usec")


def used(base):
    """A usage in which every number is another one."""
    result = execution.Usage()
    for at, name in enumerate(NUMBERS):
        value = base + at
        if name.endswith("_usec"):
            field = name.removesuffix("_usec")
            field = field if field == "run_queue_wait" else field + "_time"
            getattr(result, field).FromMicroseconds(value)
        else:
            setattr(result, name, value)
    return result


def record(sequence, **fields):
    kind = usage.USAGE_RECORD_TYPE_EXECUTION if sequence % 2 else usage.USAGE_RECORD_TYPE_SANDBOX
    made = usage.UsageRecord(sandbox_id=SANDBOX_ID, sequence=sequence, type=kind, owner="uid:0", usage=used(1000000 * sequence), **fields)
    if sequence % 2:
        made.execution_id, made.outcome, made.cause = EXECUTION_ID, execution.OUTCOME_OK, execution.CAUSE_PROGRAM
    made.start_time.FromSeconds(1700000000)
    made.end_time.FromSeconds(1700000000 + sequence)
    return made


class Ledger:
    """As many records, in pages of which one is empty."""

    def __init__(self, n, page=7):
        self.records = [record(at + 1) for at in range(n)]
        self.page = page
        self.complete_until = 0
        self.is_new = False
        self.failures = []  # to be raised, one for each answer; None: none

    def __call__(self, request):
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        begin, is_empty = (request.page_token or "0").split(":") if ":" in request.page_token else (request.page_token or "0", "")
        begin = int(begin)
        answer = usage.GetUsageResponse()
        if not is_empty and begin == self.page:
            answer.next_page_token = f"{begin}:empty"
            return answer
        answer.records.extend(self.records[begin:begin + self.page])
        if begin + self.page < len(self.records):
            answer.next_page_token = str(begin + self.page)
        if begin == 0:
            answer.records_total = len(self.records)
            answer.sums.CopyFrom(used(5000000))
            answer.sums.cpu_user_time.FromSeconds(3)
            answer.sums.cpu_system_time.FromSeconds(2)
            answer.sums.stdout_bytes, answer.sums.stderr_bytes, answer.sums.rich_bytes = 1000, 20, 4
            answer.sums.missing.extend(["rss_peak_bytes", "run_queue_wait"])
            for field, records in (("rss_peak_bytes", 3), ("run_queue_wait", len(self.records))):
                answer.gaps.add(field=field, records=records)
            answer.records_incomplete = 2
            if self.is_new:
                answer.sums.ClearField("wall_time")
            if self.complete_until:
                answer.complete_until.FromSeconds(self.complete_until)
            if request.destinations:
                answer.destinations.add(name="example.org", address="192.0.2.1", port=443, connections=3, sent_bytes=1024, received_bytes=2048)
        return answer


class Show(CliTest):
    def test_it_shows_sums_and_the_last_records(self):
        ran = self.hotcell(self.serve(GetUsage=Ledger(20)), "usage", "-n", "3")
        self.assertEqual((ran.returncode, ran.stderr), (0, b""))
        lines = ran.stdout.decode().splitlines()
        self.assertEqual(lines[0].split(), ["Records", "20"])
        self.assertIn("CPU              5.000 s (user 3.000 s, system 2.000 s)", lines)
        self.assertIn("Waited for CPUs  at least 5.000 s", lines)
        self.assertIn("Output           1.0 KiB", lines)
        self.assertIn("Not measured     rss_peak_bytes in 3 of 20 records", lines)
        self.assertIn("                 run_queue_wait in 20 of 20 records", lines)
        self.assertIn("Incomplete       2 records: more may have been used", lines)
        self.assertEqual(lines[-4].split(), ["UNTIL", "SANDBOX", "WHAT", "CPU", "TIME", "PEAK", "SENT", "RECEIVED", "END"])
        self.assertEqual([line.split()[2] for line in lines[-3:]], ["SANDBOX", EXECUTION_ID, "SANDBOX"])
        self.assertEqual(lines[-2].split()[0], "2023-11-14T22:13:39.000Z")
        self.assertEqual(lines[-2].split()[-1], "OK")

    def test_time_that_no_record_has_is_not_shown_as_none(self):
        ledger = Ledger(1)
        shown = self.hotcell(self.serve(GetUsage=ledger), "usage").stdout
        self.assertIn(b"\nTime ", shown)
        ledger.is_new = True
        self.assertNotIn(b"\nTime ", self.hotcell(self.serve(GetUsage=ledger), "usage").stdout)

    def test_records_that_are_incomplete_say_so(self):
        ledger = Ledger(1)
        ledger.records[0].usage.missing.extend(["cpu_time", "memory_peak_bytes", "sent_bytes"])
        ledger.records[0].usage.sent_bytes = 0
        ran = self.hotcell(self.serve(GetUsage=ledger), "usage")
        self.assertRegex(ran.stdout.decode().splitlines()[-1], r" at least 1\.000 s .* at least [0-9.]+ KiB +- +[0-9.]+ KiB +OK$")

    def test_json_has_the_answer(self):
        ran = self.hotcell(self.serve(GetUsage=Ledger(20)), "usage", "-n", "2", "-o", "json")
        answer = json.loads(ran.stdout)
        self.assertEqual((answer["records_total"], answer["next_page_token"]), (20, ""))
        self.assertEqual([each["sequence"] for each in answer["records"]], [19, 20])
        self.assertEqual(answer["sums"]["cpu_time"], "5s")

    def test_without_rows_one_page_is_enough(self):
        server = self.serve(GetUsage=Ledger(20))
        self.assertNotIn(b"UNTIL", self.hotcell(server, "usage", "-n", "0").stdout)
        self.assertEqual(len(server.requests), 1)

    def test_destinations_are_shown_on_demand(self):
        server = self.serve(GetUsage=Ledger(1))
        self.assertNotIn(b"example.org", self.hotcell(server, "usage", SANDBOX_ID).stdout)
        self.assertRegex(self.hotcell(server, "usage", "--destinations", SANDBOX_ID).stdout.decode(),
                         r"example\.org +192\.0\.2\.1 +443 +3 +1\.0 KiB +2\.0 KiB")

    def test_all_filters_are_asked_for(self):
        server = self.serve(GetUsage=Ledger(1))
        now = time.time()
        for command in (["usage"], ["usage", "export"]):
            self.hotcell(server, *command, SANDBOX_ID, "--execution", EXECUTION_ID, "--owner", KEY_ID, "-l", "team=blue", "-l", "x=",
                         "--since", "24h", "--until", "2033-05-18T03:33:20Z")
            request = server.requests[-1][1]
            self.assertEqual((request.sandbox_id, request.execution_id, request.owner), (SANDBOX_ID, EXECUTION_ID, KEY_ID))
            self.assertEqual(dict(request.labels), {"team": "blue", "x": ""})
            self.assertEqual(request.end_time.seconds, 2000000000)
            self.assertAlmostEqual(request.start_time.seconds, now - 86400, delta=TIMEOUT)
        self.hotcell(server, "usage", "--since", "2023-11-14")
        self.assertEqual(server.requests[-1][1].start_time.seconds, 1699920000)
        for text, seconds, nanos in (("2023-11-14T01:00:00.735Z", 1699923600, 735000000), ("2023-11-14T01:00:00+01:00", 1699920000, 0),
                                     ("2023-11-14 00:00:00", 1699920000, 0), ("2023-11-13T22:30-01:30", 1699920000, 0)):
            self.hotcell(server, "usage", "--since", text)
            time_asked = server.requests[-1][1].start_time
            self.assertEqual((time_asked.seconds, time_asked.nanos), (seconds, nanos), text)
        for wrong in ("yesterday", "2023-13-14", "2023-11-14x", "-1h", "", "2026", "20261127", "2023-02-31", "2023-11-14T01:00:00.Z",
                      "2023-11-14T01:00:00+1:00", "2023-11-14Z", "5."):
            ran = self.hotcell(server, "usage", f"--since={wrong}")
            self.assertEqual(ran.returncode, 125)
            self.assertIn(b"--since takes a time", ran.stderr)

    def test_an_owner_may_be_a_name_of_a_key(self):
        old = keys.Key(key_id="key-" + "o" * 26, name="ci", state=keys.KEY_STATE_REVOKED, owner="key-" + "o" * 26)
        shared = keys.Key(key_id="key-" + "s" * 26, name="ci", state=keys.KEY_STATE_ACTIVE, owner=KEY_ID)
        server = self.serve(GetUsage=Ledger(1), ListKeys=lambda request: keys.ListKeysResponse(keys=[old, shared]))
        for text, owner in (("ci", KEY_ID), ("key-o", old.owner), ("key-s", KEY_ID), ("uid:7", "uid:7")):
            self.assertEqual(self.hotcell(server, "usage", "--owner", text).returncode, 0)
            self.assertEqual(server.requests[-1][1].owner, owner, text)
        ran = self.hotcell(server, "usage", "--owner", "nobody")
        self.assertEqual((ran.returncode, ran.stdout), (125, b""))
        self.assertIn(b"no key has the id or name 'nobody'", ran.stderr)

    def test_that_nothing_fits_is_said(self):
        ledger = Ledger(0)
        server = self.serve(GetUsage=ledger)
        for command in (["usage"], ["usage", "-o", "json"], ["usage", "export"], ["usage", "export", "--format", "jsonl"]):
            ran = self.hotcell(server, *command)
            self.assertEqual((ran.returncode, ran.stderr.count(b"no record of the ledger fits\n")), (0, 1), command)
        ledger.complete_until = 1700000000
        ran = self.hotcell(server, "usage", SANDBOX_ID)
        self.assertRegex(ran.stderr, rb"fits yet: .* every ledger_period, ")
        self.assertIn(b"2023-11-14T22:13:20.000Z", ran.stderr)

    def test_what_is_over_can_have_no_record_yet_to_come(self):
        ledger = Ledger(0)
        ledger.complete_until = 1700000000
        server = self.serve(GetUsage=ledger)
        for until, said in (("2023-11-14T22:13:20Z", b"no record of the ledger fits\n"), ("2023-11-14T22:13:20.5Z", b"fits yet"),
                            ("2023-11-14T22:13:19Z", b"no record of the ledger fits\n"), ("2023-11-14T22:13:21Z", b"fits yet")):
            self.assertIn(said, self.hotcell(server, "usage", "--until", until).stderr, until)
            self.assertIn(said, self.hotcell(server, "usage", "export", "--until", until).stderr, until)

    def test_export_is_suggested_where_no_sandbox_is_called_so(self):
        boxes = []
        server = self.serve(GetUsage=Ledger(1), ListSandboxes=lambda request: sandboxes.ListSandboxesResponse(sandboxes=boxes))
        for word, is_near in (("exprot", True), ("my-box", False)):
            ran = self.hotcell(server, "usage", word)
            self.assertEqual((ran.returncode, b"did you mean `hotcell usage export`?" in ran.stderr), (125, is_near), word)
        boxes.append({"sandbox_id": SANDBOX_ID, "name": "exprot"})
        self.assertEqual(self.hotcell(server, "usage", "exprot").stderr, b"")
        self.assertNotIn(b"did you mean", self.hotcell(server, "usage", "--since", "never", "exprot").stderr)

    def test_it_says_until_when_it_is_complete(self):
        ledger = Ledger(3)
        server = self.serve(GetUsage=ledger)
        self.assertNotIn(b"Complete", self.hotcell(server, "usage").stdout)
        ledger.complete_until = 1700000000
        ran = self.hotcell(server, "usage")
        self.assertIn(b"Complete until   2023-11-14T22:13:20.000Z\n", ran.stdout)
        self.assertEqual(ran.stderr, b"")

    def test_a_refusal_is_said(self):
        ledger = Ledger(1)
        ledger.failures = [Refuse(grpc.StatusCode.PERMISSION_DENIED, "That is for operators.")] * 2
        for command in (["usage"], ["usage", "export", "--format", "jsonl"]):
            ran = self.hotcell(self.serve(GetUsage=ledger), *command, "--owner", "uid:0")
            self.assertEqual((ran.returncode, ran.stdout), (125, b""))
            self.assertIn(b"That is for operators.", ran.stderr)


class Export(CliTest):
    def test_csv_has_every_record_with_every_number(self):
        ran = self.hotcell(self.serve(GetUsage=Ledger(20)), "usage", "export")
        self.assertEqual((ran.returncode, ran.stderr), (0, b""))
        self.assertEqual(ran.stdout.count(b"\r\n"), 21)
        rows = list(csv.DictReader(io.StringIO(ran.stdout.decode(), newline=""), strict=True))
        self.assertEqual([int(row["sequence"]) for row in rows], list(range(1, 21)))
        for row in rows:
            base = 1000000 * int(row["sequence"])
            self.assertEqual([int(row[name]) for name in NUMBERS], [base + at for at in range(len(NUMBERS))])
        self.assertEqual({name: rows[0][name] for name in list(rows[0])[:11]}, {
            "sandbox_id": SANDBOX_ID, "sequence": "1", "type": "EXECUTION", "execution_id": EXECUTION_ID, "context_id": "", "owner": "uid:0",
            "start_time": "2023-11-14T22:13:20.000Z", "end_time": "2023-11-14T22:13:21.000Z", "outcome": "OK", "cause": "PROGRAM",
            "incomplete": "false"})
        self.assertEqual((rows[1]["type"], rows[1]["outcome"], rows[1]["cause"]), ("SANDBOX", "", ""))

    def test_json_lines_have_the_same_fields(self):
        server = self.serve(GetUsage=Ledger(20))
        table = list(csv.DictReader(io.StringIO(self.hotcell(server, "usage", "export").stdout.decode(), newline="")))
        lines = self.hotcell(server, "usage", "export", "--format", "jsonl").stdout.splitlines()
        self.assertEqual(len(lines), 20)
        for row, line in zip(table, lines):
            values = json.loads(line)
            self.assertEqual({name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}, row)
            self.assertEqual(list(values), list(row))

    def test_what_is_missing_is_named(self):
        ledger = Ledger(1)
        names = {"sent_bytes": "sent_bytes", "throttled_time": "throttled_usec", "run_queue_wait": "run_queue_wait_usec",
                 "scheduled_time": "scheduled_usec", "earlier_work_time": "earlier_work_usec", "memory_mean_bytes": "memory_mean_bytes"}
        ledger.records[0].usage.missing.extend(names)
        ledger.records[0].incomplete = True
        ran = self.hotcell(self.serve(GetUsage=ledger), "usage", "export")
        row, = csv.DictReader(io.StringIO(ran.stdout.decode(), newline=""))
        self.assertEqual((row["missing"], row["incomplete"]), (" ".join(names.values()), "true"))

    def test_an_empty_ledger_has_its_header(self):
        ran = self.hotcell(self.serve(GetUsage=Ledger(0)), "usage", "export")
        self.assertEqual(ran.returncode, 0)
        self.assertTrue(ran.stdout.startswith(b"sandbox_id,sequence,type,"))
        self.assertEqual(ran.stdout.count(b"\n"), 1)

    def test_what_a_strange_server_says_stays_in_its_cell(self):
        ledger = Ledger(1)
        ledger.records[0].owner = 'a,"b"\r\n\x1b[2Jc'
        ran = self.hotcell(self.serve(GetUsage=ledger), "usage", "export")
        row, = csv.DictReader(io.StringIO(ran.stdout.decode(), newline=""), strict=True)
        self.assertEqual(row["owner"], 'a,"b"\\r\\n\\x1b[2Jc')

    def test_a_restart_of_the_server_is_not_seen(self):
        ledger = Ledger(20)
        away = Refuse(grpc.StatusCode.UNAVAILABLE, "away")
        ledger.failures = [None, away, None, away, away]
        ran = self.hotcell(self.serve(GetUsage=ledger), "usage", "export")
        self.assertEqual((ran.returncode, ran.stderr, ran.stdout.count(b"\r\n")), (0, b"", 21))

    def test_a_reader_that_left_ends_it(self):
        process = self.spawn(self.serve(GetUsage=Ledger(20000, page=100)), "usage", "export")
        process.stdout.readline()
        process.stdout.close()
        self.assertEqual(process.wait(TIMEOUT), 125)


if __name__ == "__main__":
    unittest.main()
