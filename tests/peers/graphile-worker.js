// No-op jobs of graphile-worker, enqueued before it starts: prints how many were done in a second, row by row and batched.
// node graphile-worker.js DATABASE_URL JOBS CONCURRENCY
import { makeWorkerUtils, run } from 'graphile-worker';

const [connectionString, jobs, concurrency] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const quiet = { error: console.error, warning() {}, info() {}, debug() {} };
const { Logger } = await import('graphile-worker');
const logger = new Logger(() => (level, message) => quiet[level]?.(message));

async function measure(worker) {
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  for (let i = 0; i < jobs; i += 1000) {
    const count = Math.min(1000, jobs - i);
    await utils.addJobs(Array.from({ length: count }, () => ({ identifier: 'noop', payload: {} })));
  }
  let left = jobs;
  let done;
  const all = new Promise((resolve) => (done = resolve));
  const start = process.hrtime.bigint();
  const runner = await run({
    connectionString,
    logger,
    concurrency,
    noHandleSignals: true,
    taskList: {
      noop: () => {
        left -= 1;
        if (left === 0) done();
      },
    },
    preset: { worker: { maxPoolSize: 10, ...worker } },
  });
  await all;
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  await runner.stop();
  await utils.release();
  return jobs / seconds;
}

const plain = await measure({});
const batched = await measure({ localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 });
console.log(JSON.stringify({ perSecond: plain, batchedPerSecond: batched }));
process.exit(0);
