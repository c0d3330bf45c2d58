"""How a run ended, as all say who tell it: the client's stream, the command line, GetExecution, a replay, the rows. They must agree."""

import base64
import contextlib
import json
import os
import re
import sqlite3
import subprocess
import threading

import grpc

import daemons
import scenario
import stubs
from stubs import execution, execution_service

SECONDS = 60 * daemons.PATIENCE
CUT_OFF = "CUT_OFF"  # the client lost its server before the end
EXIT_OURS = 125


def ended_of(message):
    """What Ended says, but for the usage; absent fields as the CLI's JSON leaves them out."""
    return {"outcome": execution.Outcome.Name(message.outcome).removeprefix("OUTCOME_"),
            "cause": execution.Cause.Name(message.cause).removeprefix("CAUSE_"),
            "exit_code": message.exit_code if message.HasField("exit_code") else None,
            "signal": message.signal, "state_lost": message.state_lost, "message": message.message}


class Run:
    """One run by the command line, whose events are read while it goes on."""

    def __init__(self, target, arguments, code, api_key=None, is_read=True):
        environment = {**os.environ, "HOTCELL_TARGET": target, **({"HOTCELL_API_KEY": api_key} if api_key else {})}
        words = [daemons.build_folder() / "cli/hotcell", *arguments, "-o", "jsonl", "-c", code]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        self.seen, self.events, self.stdout, self.stderr = threading.Condition(), [], b"", b""
        self.may_read = threading.Event()
        self.readers = [threading.Thread(target=read) for read in (self.read_events, self.read_errors)]
        for reader in self.readers:
            reader.start()
        if is_read:
            self.may_read.set()

    def read_events(self):
        for line in self.process.stdout:
            event = json.loads(line)
            with self.seen:
                self.events.append(event)
                self.stdout += base64.b64decode(event.get("stdout", {}).get("data", ""))
                self.seen.notify_all()
            if "started" in event:
                self.may_read.wait()
        with self.seen:
            self.events.append(None)
            self.seen.notify_all()

    def read_errors(self):
        self.stderr = self.process.stderr.read()

    def event(self, kind):
        return next((event[kind] for event in self.events if event and kind in event), None)

    def wait(self, condition, what):
        """Until the events say so, or there are no more."""
        with self.seen:
            self.seen.wait_for(lambda: condition() or (self.events and self.events[-1] is None), SECONDS)
            assert condition(), f"{what} did not come: {self.events} {self.stderr}"

    def wait_queued(self):
        self.wait(lambda: self.event("queued"), "queued")
        return self

    def wait_output(self, text=b"begun\n"):
        self.wait(lambda: text in self.stdout, text)
        return self

    @property
    def execution_id(self):
        return self.event("queued")["execution_id"]

    @property
    def sandbox_id(self):
        return self.event("queued")["sandbox_id"]

    @property
    def context_id(self):
        return self.event("queued")["context_id"]

    def finish(self):
        """Its exit code, and what its stream said of the end; None when it was cut off."""
        self.may_read.set()
        self.process.wait(SECONDS * 2)
        for reader in self.readers:
            reader.join()
        ended = self.event("ended")
        wanted = ("outcome", "cause", "exit_code", "signal", "state_lost", "message")
        return self.process.returncode, ended and {name: ended.get(name, 0 if name == "signal" else None) for name in wanted}

    def leave(self):
        """It is killed: whoever looks sees a client that is gone."""
        self.may_read.set()
        self.process.kill()
        self.finish()


class Tellers:
    """One server, and the table of what was checked."""

    def __init__(self, running, client):
        self.running, self.client = running, client

    def rows(self, query, *values):
        with contextlib.closing(sqlite3.connect(f"file:{self.running.state}/hotcell.db?mode=ro", uri=True)) as database:
            return database.execute(query, values).fetchall()

    def get_execution(self, execution_id):
        message = execution_service.GetExecutionRequest(execution_id=execution_id)
        return self.client.executions.GetExecution(message, timeout=SECONDS, wait_for_ready=True).execution

    def await_end(self, execution_id):
        def is_over():
            try:
                found = self.get_execution(execution_id)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                return None
            return found.state == stubs.execution.EXECUTION_STATE_ENDED and found

        return daemons.wait_until(is_over, "its end")

    def ledger_rows(self, execution_id):
        return [(execution.Outcome.Name(outcome).removeprefix("OUTCOME_"), execution.Cause.Name(cause).removeprefix("CAUSE_"))
                for outcome, cause in self.rows("SELECT outcome, cause FROM usage_records WHERE execution_id = ?", execution_id)]

    def check(self, execution_id, wanted, streamed=None):
        """All who tell it agree with @wanted, fields of Ended and `like` for its message; returns what the ledger has."""
        found = self.await_end(execution_id)
        told = ended_of(found.ended)
        self.check_replay(found, told)
        return self.check_told(execution_id, told, wanted, streamed)

    def check_told(self, execution_id, told, wanted, streamed=None):
        for name, value in wanted.items():
            if name == "like":
                assert re.search(value, told["message"]), f"{told['message']!r} is not like {value!r}"
            else:
                assert told[name] == value, f"{name} is {told[name]!r}, not {value!r}: {told}"
        assert told["message"].endswith("."), told
        if streamed:
            differing = {name for name in streamed if streamed[name] != told[name]}
            assert not differing, f"the stream says {streamed}, GetExecution {told}"
        row = self.told_by_row(execution_id)
        assert row == told, f"the row says {row}, GetExecution {told}"
        ledger = self.ledger_rows(execution_id)
        assert ledger == [(told["outcome"], told["cause"])], f"the ledger says {ledger}, GetExecution {told}"
        return "/".join(ledger[0])

    def told_by_row(self, execution_id):
        """None while it is not over."""
        for outcome, cause, has_code, code, number, state_lost, message in self.rows(
                "SELECT outcome, cause, has_exit_code, exit_code, signal, state_lost, message FROM executions WHERE state = 3 AND execution_id = ?",
                execution_id):
            return {"outcome": execution.Outcome.Name(outcome).removeprefix("OUTCOME_"),
                    "cause": execution.Cause.Name(cause).removeprefix("CAUSE_"), "exit_code": code if has_code else None,
                    "signal": number, "state_lost": bool(state_lost), "message": message}
        return None

    def check_replay(self, found, told):
        """Its last event, when it is still there: what the server lost sight of has none."""
        if found.first_sequence:
            before = found.last_sequence - 1
            message = execution_service.AttachExecutionRequest(execution_id=found.execution_id, after_sequence=before)
            replayed = scenario.fold(self.client.executions.AttachExecution(message, timeout=SECONDS), scenario.Run(sequence=before))
            assert ended_of(replayed.ended) == told, f"the replay says {replayed.ended}, GetExecution {told}"

    def check_sandbox(self, sandbox_id, cause):
        """It is over for that cause, at a time, and its rows say so."""
        def is_over():
            try:
                found = scenario.get(self.client, sandbox_id)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                return None
            return found.state == stubs.sandbox.SANDBOX_STATE_ENDED and found

        found = daemons.wait_until(is_over, "the sandbox's end")
        assert execution.Cause.Name(found.end_cause) == f"CAUSE_{cause}", found
        assert found.end_time.ToMicroseconds() > found.create_time.ToMicroseconds(), found
        assert found.end_message.endswith("."), found
        row = self.rows("SELECT state, end_cause, end_time_usec FROM sandboxes WHERE sandbox_id = ?", sandbox_id)
        assert row == [(4, found.end_cause, found.end_time.ToMicroseconds())], row
        ledger = self.rows("SELECT cause FROM usage_records WHERE sandbox_id = ? AND type = 3", sandbox_id)
        assert ledger == [(found.end_cause,)], f"the ledger's row of its end says {ledger}: {found}"


class Table:
    """What was caused and checked, shown at the end."""

    def __init__(self):
        self.lock, self.lines = threading.Lock(), []

    def add(self, name, outcome, cause, code, ledger, sandbox_cause=""):
        with self.lock:
            self.lines.append([name, outcome, cause, str(code), ledger, sandbox_cause])

    def show(self):
        heads = ["case", "outcome", "cause", "exit", "ledger", "its sandbox ended"]
        widths = [max(len(line[i]) for line in [heads, *self.lines]) for i in range(len(heads))]
        for line in [heads, *sorted(self.lines)]:
            print("# " + "  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip(), flush=True)
