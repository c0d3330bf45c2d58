// The main job through @grpc/grpc-js: state, order, time, limits. Prints TAP; HOTCELL_TARGET names the server.
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const protos = fileURLToPath(new URL('../../../proto', import.meta.url));
const definition = loader.loadSync(['hotcell/v1/sandbox_service.proto', 'hotcell/v1/execution_service.proto'], {
  includeDirs: [protos, '/usr/include'], keepCase: true, longs: Number, enums: String, bytes: Buffer, oneofs: true, defaults: true,
});
const { hotcell } = grpc.loadPackageDefinition(definition);
const credentials = grpc.credentials.createInsecure();
const sandboxes = new hotcell.v1.SandboxService(process.env.HOTCELL_TARGET, credentials);
const executions = new hotcell.v1.ExecutionService(process.env.HOTCELL_TARGET, credentials);
const MIB = 1 << 20;

const deadline = () => new Date(Date.now() + 120_000);

function unary(service, method, request) {
  return new Promise((resolve, reject) =>
    service[method](request, { deadline: deadline() }, (error, reply) => (error ? reject(error) : resolve(reply))));
}

class Run {
  stdout = []; stderr = []; order = []; results = []; displays = []; gaps = [];
  sequence = 0;

  take(event) {
    const kind = event.event;
    if (kind !== 'gap' && this.gaps.length === 0) assert.equal(event.sequence, this.sequence + 1);
    this.sequence = event.sequence;
    if (kind === 'stdout' || kind === 'stderr') {
      this[kind].push(event[kind].data);
      const last = this.order.at(-1);
      if (last?.[0] === kind) last[1] += event[kind].data.toString();
      else this.order.push([kind, event[kind].data.toString()]);
      return;
    }
    if (kind === 'result' || kind === 'display') {
      this[`${kind}s`].push(Object.fromEntries(event[kind].bundle.parts.map((p) => [p.type, p.data])));
      this.order.push([kind]);
    } else if (kind === 'gap') this.gaps.push(event.gap);
    else this[kind] = event[kind];
  }

  get out() { return Buffer.concat(this.stdout).toString(); }
  get text() { return this.results[0]?.['text/plain'].toString(); }
}

function read(stream, run, until = () => false) {
  return new Promise((resolve, reject) => {
    stream.on('data', (response) => {
      for (const event of response.events) run.take(event);
      if (until(run)) { stream.cancel(); resolve(run); }
    });
    stream.on('end', () => resolve(run));
    stream.on('error', (error) => (error.code === grpc.status.CANCELLED ? resolve(run) : reject(error)));
  });
}

const request = (sandbox_id, code, fields = {}) => ({ sandbox_id, code, ...fields });
const execute = (sandbox_id, code, fields, until) =>
  read(executions.Execute(request(sandbox_id, code, fields), { deadline: deadline() }), new Run(), until);
const attach = (run) =>
  read(executions.AttachExecution({ execution_id: run.queued.execution_id, after_sequence: run.sequence },
    { deadline: deadline() }), run);

const made = [];
async function sandbox(limits = {}) {
  const { sandbox } = await unary(sandboxes, 'CreateSandbox', { spec: { limits: { memory_bytes: 512 * MIB, ...limits } } });
  made.push(sandbox.sandbox_id);
  return sandbox.sandbox_id;
}

const seconds = (n) => ({ timeout: { seconds: n } });

const tests = {
  async 'a context keeps its variables, another sandbox has none'() {
    const one = await sandbox();
    await execute(one, 'x = 41');
    assert.equal((await execute(one, 'x + 1')).text, '42');
    const run = await execute(await sandbox(), '\nx + 1');
    assert.equal(run.ended.outcome, 'OUTCOME_RAISED');
    assert.equal(run.error.name, 'NameError');
    assert.equal(run.error.value, "name 'x' is not defined");
    assert.match(run.error.traceback.join('\n'), /line 2|----> 2/);
  },

  async 'output arrives in order, also after attaching again'() {
    const code = `
import os, subprocess, sys, time
from IPython.display import display, HTML
for i in range(3):
    print("out", i)
    while not os.path.exists("opened"): time.sleep(0.01)
    print("err", i, file=sys.stderr)
display(HTML("<b>one</b>"))
os.write(1, b"raw\\n")
subprocess.run(["echo", "child"])
"value"`;
    const wanted = [];
    for (let i = 0; i < 3; i++) wanted.push(['stdout', `out ${i}\n`], ['stderr', `err ${i}\n`]);
    wanted.push(['display'], ['stdout', 'raw\nchild\n'], ['result']);
    const one = await sandbox();
    const left = await execute(one, code, {}, (run) => run.out.includes('out 0'));
    assert.ok(!left.ended);
    // From another context: the first waits for it.
    const { context } = await unary(executions, 'CreateContext', { sandbox_id: one });
    await execute(one, "open('opened', 'w').close()", { context_id: context.context_id });
    assert.deepEqual((await attach(left)).order, wanted);
    assert.deepEqual((await execute(one, code)).order, wanted);
  },

  async 'combined output keeps 200 alternating raw writes'() {
    const run = await execute(await sandbox(), "import os\nfor i in range(200):\n    os.write(1 + i % 2, b'%d\\n' % i)",
      { combine_output: true });
    assert.equal(run.out, Array.from({ length: 200 }, (_, i) => `${i}\n`).join(''));
  },

  async 'a timeout keeps the variables, a cell that ignores SIGINT is killed'() {
    const one = await sandbox();
    await execute(one, 'kept = 7');
    const start = Date.now();
    const busy = await execute(one, 'while True: pass', { limits: seconds(1) });
    assert.equal(busy.ended.outcome, 'OUTCOME_TIMEOUT');
    assert.ok(Date.now() - start < 3000);
    assert.equal((await execute(one, 'kept')).text, '7');
    const deaf = await execute(one, 'import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass',
      { limits: seconds(1) });
    assert.equal(deaf.ended.outcome, 'OUTCOME_TIMEOUT');
    assert.equal(deaf.ended.state_lost, true);
    const after = await execute(one, 'kept');
    assert.equal(after.error.name, 'NameError');
    assert.equal(after.started.context_generation, deaf.started.context_generation + 1);
  },

  async 'memory ends as OOM, a full disk as ENOSPC, and the sandbox still answers'() {
    const one = await sandbox({ memory_bytes: 256 * MIB, disk_bytes: 32 * MIB });
    assert.equal((await execute(one, 'block = bytearray(1 << 30)')).ended.outcome, 'OUTCOME_OOM');
    assert.equal((await execute(one, '1+1')).text, '2');
    const full = await execute(one, `try:
    open('big', 'wb').write(bytes(64 << 20))
except OSError as error:
    print(error.errno)`);
    assert.equal(full.out, '28\n');
    assert.equal((await execute(one, '1+1')).text, '2');
  },

  async 'a fork bomb stays in its sandbox'() {
    const [bomb, neighbour] = [await sandbox({ processes: 64 }), await sandbox()];
    const running = execute(bomb, `import os, time
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
except OSError as error:
    print(error.errno)`);
    assert.equal((await execute(neighbour, '1+1')).text, '2');
    assert.equal((await running).out, '11\n');
  },

  async 'limits that do not go together are refused with both fields'() {
    const error = await sandbox({ memory_bytes: 256 * MIB, disk_bytes: 256 * MIB }).catch((e) => e);
    assert.equal(error.code, grpc.status.INVALID_ARGUMENT);
    const details = error.metadata.get('grpc-status-details-bin')[0].toString('latin1');
    for (const word of ['LIMITS_CONFLICT', 'hotcell.dev', 'spec.limits.memory_bytes', 'spec.limits.disk_bytes'])
      assert.ok(details.includes(word), word);
  },

  async 'a client that does not read ends the program as CLIENT_NOT_READING'() {
    const one = await sandbox();
    const stream = executions.Execute(request(one,
      "import os\nfor _ in range(16384):\n    os.write(1, b'x' * 65536)",
      { limits: { ...seconds(3), output_bytes: 2 ** 30 } }), { deadline: deadline() });
    const run = new Run();
    await new Promise((resolve) => stream.once('data', (response) => {
      stream.pause();
      for (const event of response.events) run.take(event);
      resolve();
    }));
    stream.on('error', () => {});
    let execution;
    do {
      ({ execution } = await unary(executions, 'GetExecution', { execution_id: run.queued.execution_id }));
      await new Promise((resolve) => setTimeout(resolve, 50));
    } while (execution.state !== 'EXECUTION_STATE_ENDED');
    assert.equal(execution.ended.outcome, 'OUTCOME_TIMEOUT');
    assert.equal(execution.ended.cause, 'CAUSE_CLIENT_NOT_READING');
    stream.cancel();
  },

  async 'detached output drops the oldest with a gap and ends by its limit'() {
    const run = await execute(await sandbox(), "import os\nfor _ in range(4096):\n    os.write(1, b'x' * 65536)", {
      on_disconnect: 'ON_DISCONNECT_CONTINUE', disconnect_grace: { nanos: 1_000_000 },
      limits: { ...seconds(60), output_bytes: 128 * MIB },
    }, (r) => r.queued);
    let execution;
    do {
      ({ execution } = await unary(executions, 'GetExecution', { execution_id: run.queued.execution_id }));
      await new Promise((resolve) => setTimeout(resolve, 50));
    } while (execution.state !== 'EXECUTION_STATE_ENDED');
    const replay = new Run();
    replay.queued = run.queued;
    await attach(replay);
    assert.equal(replay.ended.outcome, 'OUTCOME_OUTPUT_LIMIT');
    assert.equal(replay.gaps.length, 1);
  },
};

console.log(`TAP version 13\n1..${Object.keys(tests).length}`);
let number = 0;
let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  number += 1;
  try {
    await test();
    console.log(`ok ${number} ${name}`);
  } catch (error) {
    failed += 1;
    console.log(String(error.stack).replace(/^/gm, '# '));
    console.log(`not ok ${number} ${name}`);
  }
  for (const sandbox_id of made.splice(0)) await unary(sandboxes, 'DeleteSandbox', { sandbox_id });
}
sandboxes.close();
executions.close();
process.exitCode = failed ? 1 : 0;
