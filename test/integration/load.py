"""The load of test_chaos: clients that know what every answer must be, byte by byte, whatever is killed meanwhile."""

import collections
import random
import threading
import time

import grpc

import scenario
import stubs
from patient import Cell, ask, new_id, is_away
from scenario import MIB, request, spec
from stubs import execution_service, sandbox, sandbox_service

BIG_LINES, BIG_WIDTH = 48, 65500  # of output, about three rings
LINES = 120
SECONDS = 60  # that something goes on without its client, or waits
TIMEOUT = 600  # seconds of a cell: it stands still while nobody serves
SETUP = """import sys, time
x = 0
def begin(n):
    global x
    x += 1
    with open('/tmp/count', 'a') as file:
        file.write(f'{n}\\n')
"""


class Journal:
    """What the workers did and saw, and the moments that they pass: for the one who kills."""

    def __init__(self):
        self.lock = threading.Condition()
        self.counts = collections.Counter()
        self.moment = None
        self.stopped = threading.Event()
        self.failures = []

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def passes(self, moment):
        with self.lock:
            self.moment = moment
            self.lock.notify_all()

    def await_moment(self, moments, seconds):
        """Until a worker passes one of them: which, or None."""
        with self.lock:
            self.moment = None
            self.lock.wait_for(lambda: self.moment in moments, seconds)
            return self.moment if self.moment in moments else None

    def fail(self, failure):
        with self.lock:
            self.failures.append(failure)
        self.stopped.set()


class Worker(threading.Thread):
    """Does what `step` says until it is told to stop."""

    def __init__(self, journal, target, seed, name):
        super().__init__(name=name)
        self.journal, self.rng = journal, random.Random(f"{seed} {name}")
        self.client = stubs.Client(target)

    def run(self):
        try:
            while not self.journal.stopped.is_set():
                self.step()
            self.end()
        except BaseException as error:  # pylint: disable=broad-exception-caught
            import traceback
            self.journal.fail(f"{self.name}: {error!r}\n{traceback.format_exc()}")
        finally:
            self.client.channel.close()

    def end(self):
        pass

    def on_lost(self):
        self.journal.count("lost connections")

    def ask(self, method, message):
        return ask(method, message, self.on_lost)

    def cell(self, sandbox_id, code, **fields):
        message = request(sandbox_id, code, request_id=new_id(), timeout=TIMEOUT, **fields)
        message.disconnect_grace.FromSeconds(SECONDS)
        message.queue_timeout.FromSeconds(SECONDS)
        return Cell(self.client, message, self.on_lost)

    def create(self, **fields):
        message = sandbox_service.CreateSandboxRequest(spec=spec(memory=256 * MIB, **fields), request_id=new_id())
        self.journal.passes("creating")
        made = self.ask(self.client.sandboxes.CreateSandbox, message).sandbox
        assert made.state == sandbox.SANDBOX_STATE_RUNNING, made
        self.journal.count("sandboxes")
        return made.sandbox_id

    def delete(self, sandbox_id):
        message = sandbox_service.DeleteSandboxRequest(sandbox_id=sandbox_id, request_id=new_id())
        self.journal.passes("deleting")
        gone = self.ask(self.client.sandboxes.DeleteSandbox, message).sandbox
        assert (gone.state, gone.end_cause) == (sandbox.SANDBOX_STATE_ENDED, stubs.execution.CAUSE_CLIENT), gone


def expect(run, outcome="OK", stdout=b"", stderr=b"", text=None, **others):
    seen = (run.outcome, run.stdout, run.stderr, run.text, run.gaps)
    wanted = (outcome, stdout, stderr, text, [])
    assert seen == wanted, f"{run.execution_id}: {shorten(seen)} is not {shorten(wanted)}; {run.error} {run.ended}"
    for name, value in others.items():
        assert getattr(run, name) == value, f"{run.execution_id}: {name} is {getattr(run, name)}, not {value}"


def shorten(values):
    return [value[:200] + b"..." + str(len(value)).encode() if isinstance(value, bytes) and len(value) > 200 else value for value in values]


def joined(order):
    """Chunks that follow each other in one stream as one."""
    found = []
    for kind, data in order:
        if kind not in ("stdout", "stderr"):
            continue
        if found and found[-1][0] == kind:
            found[-1] = (kind, found[-1][1] + data)
        else:
            found.append((kind, data))
    return found


class Stateful(Worker):
    """One sandbox whose interpreter counts in `x`, and in a file, how many cells ran."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.sandbox = self.create(name=self.name, labels={"load": "stateful"})
        expect(self.cell(self.sandbox, SETUP).finish())
        self.numbers = []   # of the cells that began, in order
        self.finished = []  # ids of the executions that ended
        self.next = 0

    def begin(self):
        self.next += 1
        self.numbers.append(self.next)
        return self.next

    def numbered(self, code, **fields):
        """A cell that begins with its number, and says at its end how many there were."""
        n = self.begin()
        return n, self.cell(self.sandbox, f"begin({n})\n{code.replace('NUMBER', str(n))}", **fields), str(len(self.numbers))

    def note(self, run):
        self.finished.append(run.execution_id)
        self.journal.count("cells")

    def step(self):
        kind = self.rng.choice((self.prints, self.prints, self.displays, self.raises, self.writes_much, self.is_long, self.is_detached,
                                self.queues, self.is_interrupted, self.asks_twice))
        kind()
        self.journal.count(kind.__name__.replace("_", " "))

    def prints(self):
        n, cell, count = self.numbered(f"for i in range({LINES}):\n    print('NUMBER', i)\n    print('NUMBER', i, file=sys.stderr)\n"
                                       "    time.sleep(0.002)\nx")
        cell.until(lambda run: run.stdout)
        self.journal.passes("printing")
        run = cell.finish()
        lines = [f"{n} {i}\n".encode() for i in range(LINES)]
        expect(run, stdout=b"".join(lines), stderr=b"".join(lines), text=count)
        assert joined(run.order) == [(kind, line) for line in lines for kind in ("stdout", "stderr")], joined(run.order)
        self.note(run)

    def displays(self):
        n, cell, count = self.numbered("for i in range(9):\n    display(f'NUMBER {i}')\n    time.sleep(0.005)\nx")
        run = cell.finish()
        expect(run, text=count, displays=[{"text/plain": f"'{n} {i}'".encode()} for i in range(9)])
        self.note(run)

    def raises(self):
        n, cell, _ = self.numbered("print('NUMBER')\nraise KeyError('NUMBER')")
        run = cell.finish()
        expect(run, outcome="RAISED", stdout=f"{n}\n".encode())
        assert (run.error.name, run.error.value) == ("KeyError", f"'{n}'"), run.error
        self.note(run)

    def writes_much(self):
        n, cell, count = self.numbered(f"for i in range({BIG_LINES}):\n    sys.stdout.write(f'NUMBER {{i}} ' + chr(97 + i % 26) * {BIG_WIDTH} + '\\n')\nx")
        cell.until(lambda run: run.stdout)
        self.journal.passes("writing")
        run = cell.finish()
        expect(run, stdout=b"".join(f"{n} {i} {chr(97 + i % 26) * BIG_WIDTH}\n".encode() for i in range(BIG_LINES)), text=count)
        self.note(run)

    def is_long(self):
        text = str(self.next % 10) * 300_000
        _, cell, count = self.numbered(f"text = '{text}'\nimport hashlib\nprint(len(text), set(text))\nx")
        self.journal.passes("sending")
        run = cell.finish()
        expect(run, stdout=f"300000 {{'{text[0]}'}}\n".encode(), text=count)
        self.note(run)

    def is_detached(self):
        n, cell, count = self.numbered("for i in range(20):\n    print('NUMBER', i)\n    time.sleep(0.005)\nx",
                                       on_disconnect=execution_service.ON_DISCONNECT_CONTINUE)
        cell.until(lambda run: run.execution_id)
        cell.leave()
        self.journal.passes("detached")
        run = cell.finish()
        expect(run, stdout=b"".join(f"{n} {i}\n".encode() for i in range(20)), text=count)
        self.note(run)

    def queues(self):
        cells = []
        for _ in range(3):
            cells.append(self.numbered("print('NUMBER')\ntime.sleep(0.05)\nx"))
            cells[-1][1].until(lambda run: run.execution_id)
        self.journal.passes("queued")
        for n, cell, count in cells:
            run = cell.finish()
            expect(run, stdout=f"{n}\n".encode(), text=count)
            self.note(run)

    def is_interrupted(self):
        n, cell, _ = self.numbered("print('NUMBER', flush=True)\nwhile True:\n    time.sleep(0.01)")
        cell.until(lambda run: run.stdout)
        self.journal.passes("interrupting")
        self.interrupt(cell.run.execution_id)
        run = cell.finish()
        expect(run, outcome="INTERRUPTED", stdout=f"{n}\n".encode(), cause="CLIENT")
        self.note(run)

    def interrupt(self, execution_id):
        message = execution_service.InterruptExecutionRequest(execution_id=execution_id, request_id=new_id())
        lost = []
        try:
            ask(self.client.executions.InterruptExecution, message, lambda: lost.append(self.on_lost()))
        except grpc.RpcError as error:
            # The first one did it, and had its effect before it was remembered.
            if not lost or stubs.reason(error) != "EXECUTION_ENDED":
                raise

    def asks_twice(self):
        n, cell, count = self.numbered("print('NUMBER')\nx")
        self.journal.passes("executing")
        run = cell.finish()
        again = Cell(self.client, cell.message, self.on_lost).finish()
        for one in (run, again):
            expect(one, stdout=f"{n}\n".encode(), text=count)
        assert (again.execution_id, again.order, again.ended) == (run.execution_id, run.order, run.ended), (run, again)
        self.note(run)

    def end(self):
        run = self.cell(self.sandbox, "print(open('/tmp/count').read(), end='')\nx").finish()
        expect(run, stdout="".join(f"{n}\n" for n in self.numbers).encode(), text=str(len(self.numbers)))
        self.delete(self.sandbox)


class Short(Worker):
    """Sandboxes that come and go."""

    def step(self):
        kind = self.rng.choice((self.lives, self.lives, self.one_shot, self.empty))
        kind()
        self.journal.count(kind.__name__.replace("_", " "))

    def empty(self):
        self.delete(self.create())

    def lives(self):
        one = self.create()
        expect(self.cell(one, "x = 41\nprint('first')").finish(), stdout=b"first\n")
        expect(self.cell(one, "x + 1").finish(), text="42")
        self.delete(one)

    def one_shot(self):
        cell = self.cell(None, "print('once')\nopen('/tmp/count', 'a').write('x')\nopen('/tmp/count').read()",
                         sandbox=spec(memory=256 * MIB))
        self.journal.passes("one shot")
        expect(cell.finish(), stdout=b"once\n", text="'x'")


class Watcher(Worker):
    """Sees every event of every sandbox once, in order."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.token = self.ask(self.client.sandboxes.ListSandboxes, sandbox_service.ListSandboxesRequest()).watch_token
        self.events = collections.defaultdict(list)

    def step(self):
        self.watch(2)

    def watch(self, seconds):
        try:
            stream = self.client.sandboxes.WatchSandboxes(sandbox_service.WatchSandboxesRequest(watch_token=self.token),
                                                           timeout=seconds, wait_for_ready=True)
            for response in stream:
                for event in response.events:
                    self.token = event.watch_token
                    self.events[event.sandbox.sandbox_id].append(
                        sandbox_service.SandboxEventType.Name(event.type).removeprefix("SANDBOX_EVENT_TYPE_"))
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED and not is_away(error):
                raise
            self.journal.count("watches resumed")


class Lister(Worker):
    """Pages through what is there all along, while hotcelld is killed between the pages."""

    def __init__(self, journal, target, seed, name, stateful):
        super().__init__(journal, target, seed, name)
        self.stateful = stateful

    def pages(self, method, message, field):
        found = []
        while True:
            answer = self.ask(method, message)
            found += getattr(answer, field)
            self.journal.count("pages")
            message.page_token = answer.next_page_token
            if not message.page_token:
                return found
            time.sleep(0.02)

    def step(self):
        listed = self.pages(self.client.sandboxes.ListSandboxes, sandbox_service.ListSandboxesRequest(
            labels={"load": "stateful"}, states=list(range(1, 5)), page_size=1), "sandboxes")
        assert [one.sandbox_id for one in listed] == [worker.sandbox for worker in reversed(self.stateful)], listed
        worker = self.rng.choice(self.stateful)
        known = list(worker.finished)
        listed = [one.execution_id for one in self.pages(self.client.executions.ListExecutions, execution_service.ListExecutionsRequest(
            sandbox_id=worker.sandbox, page_size=7), "executions")]
        assert len(set(listed)) == len(listed), listed
        assert [one for one in reversed(listed) if one in set(known)] == known, (known, listed)
        time.sleep(0.2)
