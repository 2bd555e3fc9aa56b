// No-op jobs of BullMQ, enqueued before its worker starts: prints how many were done in a second.
// node bullmq.js REDIS_URL JOBS CONCURRENCY
import { Queue, Worker } from 'bullmq';

const [url, jobs, concurrency] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const { hostname, port, pathname } = new URL(url);
const connection = { host: hostname, port: Number(port), db: Number(pathname.slice(1) || 0), maxRetriesPerRequest: null };
const name = `figures-${process.pid}`;
const queue = new Queue(name, { connection });
for (let i = 0; i < jobs; i += 1000) {
  const count = Math.min(1000, jobs - i);
  await queue.addBulk(Array.from({ length: count }, () => ({ name: 'noop', data: {}, opts: { removeOnComplete: true } })));
}
let left = jobs;
const start = process.hrtime.bigint();
await new Promise((resolve) => {
  const worker = new Worker(name, async () => {}, { connection, concurrency });
  worker.on('completed', () => {
    left -= 1;
    if (left === 0) resolve();
  });
});
const seconds = Number(process.hrtime.bigint() - start) / 1e9;
console.log(JSON.stringify({ perSecond: jobs / seconds }));
await queue.obliterate({ force: true });
process.exit(0);
