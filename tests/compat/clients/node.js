// Node clients of a row's role: expressions come in, what they are or raise goes out.
//
// Run as a process of the caller's uid; one for all rows. The first line of standard input has the
// folder of the packages, and names for the expressions.
'use strict';
const { createRequire } = require('module');
const readline = require('readline');
const { Writable } = require('stream');

const IMAGE = 'trimtab.local/worker:1';
const SERVED = 'trimtab.local/web:1';

function sink() {
  const told = [];
  const made = new Writable({ write(data, _, done) { told.push(data); done(); } });
  made.text = () => Buffer.concat(told).toString();
  return made;
}

// What a stream has until it ends, or until it has some text.
function read(stream, text) {
  return new Promise((resolve, reject) => {
    let told = '';
    stream.on('data', (data) => {
      told += data;
      if (text !== undefined && told.includes(text)) resolve(told);
    });
    stream.on('end', () => resolve(told));
    stream.on('error', reject);
  });
}

async function main() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const told = JSON.parse((await lines.next()).value);
  const load = createRequire(`${told.MODULES}/`);
  const Docker = load('dockerode');
  const { GenericContainer, Network, Wait } = load('testcontainers');
  const docker = new Docker();
  let count = 0;
  const free = () => `${told.PREFIX}-node-${count++}`;
  const names = { docker, free, sink, read, GenericContainer, Network, Wait, IMAGE, SERVED };
  names.REMOTE = told.REMOTE.join(':');
  names.pulled = (stream) => new Promise((resolve, reject) => {
    docker.modem.followProgress(stream, (error, told) => (error ? reject(error) : resolve(told)));
  });
  names.created = (more) => docker.createContainer({ Image: IMAGE, name: free(), ...more });
  const call = (body) => Object.getPrototypeOf(main).constructor(...Object.keys(names), body);
  for (;;) {
    const { value, done } = await lines.next();
    if (done) return;
    let answer;
    try {
      const found = await call(`return ${JSON.parse(value)}`)(...Object.values(names));
      answer = { value: typeof found === 'string' ? found : JSON.stringify(found) };
    } catch (error) {
      answer = { error: `${error.name}: ${error.message}` };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
}

main().then(() => process.exit(0));
