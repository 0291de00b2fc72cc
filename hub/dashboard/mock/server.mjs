// A hub that is only a face: it serves dist/ and a made-up fleet by the API of core/src/view.rs, for looking at the
// pages and for their tests. `node mock/server.mjs [--port N] [--clusters N] [--checks N] [--quiet-fleet]`.

import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { changed, makeDefinitions, makeFleet, makeRuns } from './fleet.mjs';

const DIST = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist');
export const TOKEN = 'amf_mock';
const COOKIE = 'amf-mock-session';
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
/** As strict as the hub's own, so that a page that breaks it fails here first. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STATUSES = ['Failed', 'Invalid', 'Overdue', 'Stale', 'Pending', 'Stopped', 'Succeeded'];

export class MockHub {
  fleet;
  #streams = new Set();
  #server;
  #sockets = new Set();
  #port = 0;
  /** While true every connection is refused, as a hub that is gone. */
  #away = false;

  /** While true changes are not told: a stream that lost its other end. */
  mute = false;
  /** While true no request is answered, but connections stay: a hub that hangs. */
  frozen = false;

  constructor(options = {}) {
    this.fleet = makeFleet(options);
  }

  async listen(port = 0) {
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error) => problem(response, 500, String(error)));
    });
    this.#server.on('connection', (socket) => {
      if (this.#away) return socket.destroy();
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    await new Promise((resolve) => this.#server.listen(port, '127.0.0.1', resolve));
    this.#port = this.#server.address().port;
    return `http://127.0.0.1:${this.#port}`;
  }

  close() {
    this.goAway();
    return new Promise((resolve) => this.#server.close(resolve));
  }

  /** The hub is gone: connections end and new ones are refused. */
  goAway() {
    this.#away = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  comeBack() {
    this.#away = false;
  }

  check(cluster, namespace, name) {
    return this.fleet.checks.find((c) => c.cluster === cluster && c.namespace === namespace && c.name === name);
  }

  /** Changes a check and tells the pages. */
  setCheck(cluster, namespace, name, status, options) {
    const i = this.fleet.checks.indexOf(this.check(cluster, namespace, name));
    this.fleet.checks[i] = changed(this.fleet.checks[i], status, options);
    this.#tell({ type: 'check', ...this.fleet.checks[i] });
  }

  /** Changes a cluster's link; the checks of an unreachable one are stale. */
  setCluster(name, change) {
    const cluster = this.fleet.clusters.find((c) => c.name === name);
    Object.assign(cluster, change);
    this.#tell({ type: 'cluster', ...this.#counted(cluster) });
    if (change.status !== 'Unreachable') return;
    for (const check of this.fleet.checks.filter((c) => c.cluster === name && c.status !== 'Stale')) {
      this.setCheck(check.cluster, check.namespace, check.name, 'Stale', { message: check.message });
    }
  }

  /** A check that no list has yet. */
  addCheck(check) {
    this.fleet.checks.push(check);
    this.#tell({ type: 'check', ...check });
  }

  /** Every connected cluster was just heard, as by heartbeats. */
  beat() {
    for (const cluster of this.fleet.clusters) {
      if (cluster.status === 'Connected') cluster.lastHeardAt = new Date(Date.now() - 500).toISOString();
    }
  }

  get pages() {
    return this.#streams.size;
  }

  #tell(event) {
    if (this.frozen || this.mute) return;
    for (const stream of this.#streams) stream.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  }

  #counted(cluster) {
    const checks = Object.fromEntries(STATUSES.map((status) => [status, 0]));
    for (const check of this.fleet.checks) if (check.cluster === cluster.name) checks[check.status] += 1;
    return { ...cluster, checks };
  }

  async #answer(request, response) {
    const url = new URL(request.url, 'http://mock');
    response.setHeader('content-security-policy', POLICY);
    if (!url.pathname.startsWith('/api/v1/')) return file(url.pathname, response);
    const path = url.pathname.slice('/api/v1/'.length).split('/').map(decodeURIComponent);
    if (this.frozen) return undefined;
    if (path[0] === 'login') return this.#login(request, response);
    if (path[0] === 'logout') return json(response, 204, undefined, { 'set-cookie': `${COOKIE}=; Path=/; Max-Age=0` });
    if (!request.headers.cookie?.includes(`${COOKIE}=in`)) return problem(response, 401, 'no token and no cookie');
    return this.#read(path, url.searchParams, request, response);
  }

  async #login(request, response) {
    let body = '';
    for await (const chunk of request) body += chunk;
    if (JSON.parse(body).token !== TOKEN) return problem(response, 401, 'the token is not known');
    return json(response, 200, ME, { 'set-cookie': `${COOKIE}=in; Path=/; HttpOnly; SameSite=Strict` });
  }

  #read(path, query, request, response) {
    this.beat();
    const { clusters, checks } = this.fleet;
    switch (path[0]) {
      case 'me':
        return json(response, 200, ME);
      case 'events':
        return this.#stream(request, response);
      case 'clusters':
        return json(response, 200, { items: clusters.map((cluster) => this.#counted(cluster)) });
      case 'checks':
        return json(response, 200, { items: checks });
      case 'definitions':
        return json(response, 200, { items: makeDefinitions(this.fleet) });
      case 'runs':
        return json(response, 200, this.#runs(query));
      default:
        return problem(response, 404, `there is no ${path.join('/')}`);
    }
  }

  #runs(query) {
    const check = this.check(query.get('cluster'), query.get('namespace'), query.get('name'));
    const before = Number(query.get('before') ?? Infinity);
    const limit = Number(query.get('limit') ?? 50);
    const wanted = (run) => ['kind', 'outcome'].every((key) => !query.has(key) || query.get(key) === run[key]);
    const runs = check ? makeRuns(check).filter((run) => run.id < before && wanted(run)) : [];
    const items = runs.slice(0, limit);
    return runs.length > limit ? { items, next: items.at(-1).id } : { items };
  }

  #stream(request, response) {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    response.write('event: reset\ndata: {"type":"reset"}\n\n');
    this.#streams.add(response);
    request.on('close', () => this.#streams.delete(response));
  }
}

const ME = { name: 'night-shift', role: 'viewer' };

function json(response, status, body, headers = {}) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}

function problem(response, status, detail) {
  response.writeHead(status, { 'content-type': 'application/problem+json' });
  response.end(JSON.stringify({ title: 'Refused', status, detail }));
}

function file(path, response) {
  const asked = join(DIST, normalize(path));
  const found = existsSync(asked) && statSync(asked).isFile() ? asked : join(DIST, 'index.html');
  response.writeHead(200, { 'content-type': TYPES[extname(found)] ?? 'application/octet-stream' });
  createReadStream(found).pipe(response);
}

/** The troubles of one night, for looking at the pages. */
export function trouble(hub) {
  const [a, b, c] = hub.fleet.clusters.map((cluster) => cluster.name);
  for (const cluster of [a, b, c]) hub.setCheck(cluster, 'payments', 'ledger-consistency', 'Failed', { message: 'ledger differs by 2 entries for 2026-11-21' });
  hub.setCheck(a, 'kube-system', 'coredns-resolve', 'Failed', {
    message: 'lookup kubernetes.default.svc.cluster.local: i/o timeout after 5 s (3 of 3 resolvers)',
  });
  hub.setCheck(b, 'ingress', 'canary-http', 'Failed', {
    message: 'step http-probe failed: expected status 200, got 503 from canary.shop.example',
  });
  hub.setCheck(a, 'storage', 'snapshot-restore', 'Failed', { message: 'deadline of 120 s exceeded in step restore-snapshot' });
  hub.setCheck(b, 'batch', 'cron-drift', 'Invalid');
  hub.setCheck(b, 'registry', 'image-scan', 'Overdue');
  hub.setCheck(a, 'batch', 'gpu-alloc', 'Stopped');
  hub.setCheck(b, 'batch', 'gpu-alloc', 'Stopped');
  hub.setCheck(b, 'security', 'vault-token-renew', 'Pending');
  hub.setCluster(b, { backlog: 12, clockSkewMs: -2600 });
  hub.setCluster(c, {
    status: 'Unreachable',
    lastHeardAt: new Date(Date.now() - 18 * 60_000).toISOString(),
    message: 'silent for longer than the lease of 15 s; the connection ended with: connection reset by peer',
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '8480' },
      clusters: { type: 'string', default: '3' },
      checks: { type: 'string', default: '100' },
      'quiet-fleet': { type: 'boolean', default: false },
    },
  });
  const hub = new MockHub({ clusters: Number(values.clusters), checks: Number(values.checks) });
  if (!values['quiet-fleet']) trouble(hub);
  console.log(`${await hub.listen(Number(values.port))} token ${TOKEN}`);
}
