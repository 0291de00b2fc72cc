// A hub that is only a face: it serves dist/ and a made-up fleet by the API of core/src/view.rs, for looking at the
// pages and for their tests. `node mock/server.mjs [--port N] [--clusters N] [--checks N] [--quiet-fleet]`.

import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { changed, makeChanges, makeDefinitions, makeFleet, makeRuns, makeWindows } from './fleet.mjs';

const DIST = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist');
export const TOKEN = 'amf_mock';
export const OPERATOR_TOKEN = 'amf_mock_operator';
const COOKIE = 'amf-mock-session';
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
/** As strict as the hub's own, so that a page that breaks it fails here first. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STATUSES = ['Failed', 'Invalid', 'Overdue', 'Stale', 'Pending', 'Stopped', 'Succeeded'];

const nameOf = ({ cluster, namespace, name }) => `${cluster}/${namespace}/${name}`;

/** A page in the order of the names, as large as the hub's where none is asked for. */
function pageOf(all, keyOf, query) {
  const after = query.get('after');
  const keyed = all.map((item) => [keyOf(item), item]).filter(([key]) => after === null || key > after);
  keyed.sort(([a], [b]) => (a < b ? -1 : 1));
  const page = keyed.slice(0, Number(query.get('limit') ?? 1000));
  return { items: page.map(([, item]) => item), next: keyed.length > page.length ? page.at(-1)[0] : undefined };
}

export class MockHub {
  fleet;
  #streams = new Set();
  #server;
  #sockets = new Set();
  #port = 0;
  /** While true every connection is refused, as a hub that is gone. */
  #away = false;

  /** What the hub says of incidents; undefined as of a hub that makes none. */
  incidents;
  /** What is done by `fleetcheck` or on the page, newest first. */
  changes = [];
  windows = [];
  /** The requests that asked for a change. */
  asked = [];
  /** What each cluster answers to a command. */
  answer = { outcome: 'Delivered', message: 'done' };

  /** While true changes are not told: a stream that lost its other end. */
  mute = false;
  /** While true no request is answered, but connections stay: a hub that hangs. */
  /** The OpenID provider, where there is one. */
  issuer = undefined;
  frozen = false;

  constructor(options = {}) {
    this.fleet = makeFleet(options);
    this.windows = makeWindows();
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
    const was = this.fleet.checks[i].status;
    this.fleet.checks[i] = changed(this.fleet.checks[i], status, options);
    const at = new Date(options?.now ?? Date.now()).toISOString();
    if (was !== status) this.changes.unshift({ at, kind: 'status', cluster, namespace, name, was, status });
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

  setIncidents(incidents) {
    this.incidents = incidents;
    this.#tell({ type: 'incidents' });
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
    if (path[0] === 'login' && request.method === 'GET') return json(response, 200, { issuer: this.issuer });
    if (path[0] === 'login') return this.#login(request, response);
    if (path[0] === 'logout') return json(response, 204, undefined, { 'set-cookie': `${COOKIE}=; Path=/; Max-Age=0` });
    const me = Object.values(PEOPLE).find(({ name }) => request.headers.cookie?.includes(`${COOKIE}=${name}`));
    if (!me) return problem(response, 401, 'no token and no cookie');
    if (path[0] === 'me') return json(response, 200, me);
    if (request.method !== 'GET') {
      if (me.role === 'viewer') return problem(response, 403, 'this needs the role operator, the token has viewer');
      return this.#change(path, request, response, me);
    }
    return this.#read(path, url.searchParams, request, response);
  }

  async #login(request, response) {
    const me = PEOPLE[(await bodyOf(request)).token];
    if (!me) return problem(response, 401, 'the token is not known');
    return json(response, 200, me, { 'set-cookie': `${COOKIE}=${me.name}; Path=/; HttpOnly; SameSite=Strict` });
  }

  async #change(path, request, response, me) {
    const body = await bodyOf(request);
    this.asked.push({ method: request.method, path: path.join('/'), body });
    if (path[0] === 'commands') {
      const results = body.clusters.map((cluster) => ({ cluster, ...this.answer }));
      const at = new Date().toISOString();
      const command = `${body.action} ${body.check ?? 'the whole cluster'}`;
      this.changes.unshift({ at, kind: 'command', action: `command.${body.action}`, who: me.name, message: command });
      return json(response, 200, { id: 'c0ffee', at, command, results });
    }
    if (path[5] === 'acknowledgement') {
      const check = this.check(path[1], path[3], path[4]);
      const [now, until] = [Date.now(), Date.now() + body?.expiresInSeconds * 1000];
      const made = () => ({ by: me.name, comment: body.comment, at: iso(now), expiresAt: iso(until) });
      check.care = request.method === 'PUT' ? { acknowledgement: made() } : undefined;
      this.#tell({ type: 'check', ...check });
      return request.method === 'PUT' ? json(response, 200, check) : json(response, 204);
    }
    return problem(response, 404, `there is no ${path.join('/')}`);
  }

  #read(path, query, request, response) {
    this.beat();
    const { clusters, checks } = this.fleet;
    switch (path[0]) {
      case 'events':
        return this.#stream(request, response);
      case 'clusters':
        return json(response, 200, pageOf(clusters.map((cluster) => this.#counted(cluster)), (cluster) => cluster.name, query));
      case 'checks':
        return json(response, 200, pageOf(checks, nameOf, query));
      case 'definitions':
        return json(response, 200, pageOf(makeDefinitions(this.fleet), (definition) => definition.name, query));
      case 'windows':
        return json(response, 200, { items: this.windows });
      case 'changes':
        return json(response, 200, this.#changes(query));
      case 'incidents':
        if (!this.incidents) return problem(response, 404, 'there is no path /api/v1/incidents');
        return json(response, 200, { items: this.incidents });
      case 'runs':
        return json(response, 200, this.#runs(query));
      case 'uptime':
        return json(response, 200, this.uptime(query));
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

  #changes(query) {
    const all = [...this.changes, ...makeChanges(this.fleet)].sort((a, b) => b.at.localeCompare(a.at));
    const kind = query.get('kind');
    const from = Number(query.get('before') ?? 0);
    const items = all.filter((change) => !kind || change.kind === kind);
    const limit = Number(query.get('limit') ?? 100);
    const next = from + limit < items.length ? String(from + limit) : undefined;
    return { items: items.slice(from, from + limit), next };
  }

  /** One failure of seven minutes a week, and an hour in which nobody knew. */
  uptime(query) {
    const seconds = parseInt(query.get('window'), 10) * (query.get('window').endsWith('d') ? 86_400 : 3600);
    const [now, weeks] = [Date.now(), Math.floor(seconds / 604_800)];
    const [down, unknown] = [weeks * 420, weeks * 3600];
    const up = seconds - down - unknown;
    const item = { upSeconds: up, downSeconds: down, unknownSeconds: unknown, stoppedSeconds: 0, outages: weeks };
    const [cluster, namespace, name] = ['cluster', 'namespace', 'name'].map((key) => query.get(key));
    const items = [{ cluster, namespace, name, checks: 1, ratio: up / (up + down), ...item }];
    return { from: new Date(now - seconds * 1000).toISOString(), to: new Date(now).toISOString(), items, total: 1 };
  }

  #stream(request, response) {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    response.write('event: reset\ndata: {"type":"reset"}\n\n');
    this.#streams.add(response);
    request.on('close', () => this.#streams.delete(response));
  }
}

const PEOPLE = {
  [TOKEN]: { name: 'night-shift', role: 'viewer' },
  [OPERATOR_TOKEN]: { name: 'ann', role: 'operator' },
};

const iso = (ms) => new Date(ms).toISOString();

async function bodyOf(request) {
  let body = '';
  for await (const chunk of request) body += chunk;
  return body ? JSON.parse(body) : undefined;
}

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
  hub.setCluster(b, { backlog: 12, clockSkewMs: -2600, agentVersion: '0.0.9' });
  const known = hub.check(a, 'storage', 'snapshot-restore');
  known.care = { acknowledgement: { by: 'ann', comment: 'ticket 4711', at: iso(Date.now() - 3_600_000), expiresAt: iso(Date.now() + 10_800_000) } };
  hub.check(b, 'ingress', 'canary-http').care = { maintenance: 'ingress-upgrade' };
  const remedied = hub.check(a, 'kube-system', 'coredns-resolve');
  remedied.remedy = { ...remedied.remedy, startedAt: remedied.check.finishedAt, finishedAt: iso(Date.now()) };
  remedied.remedyStatus = 'Failed';
  remedied.remedyBudget = { limit: 5, left: 3 };
  hub.setCluster(c, {
    status: 'Unreachable',
    lastHeardAt: new Date(Date.now() - 18 * 60_000).toISOString(),
    message: 'silent for longer than the lease of 15 s; the connection ended with: connection reset by peer',
  });
}

/** The incident that the hub makes of the ledger that fails everywhere. */
export function incident(hub) {
  const failing = hub.fleet.checks.filter((check) => check.name === 'ledger-consistency' && check.status === 'Failed');
  const counts = { failing: failing.length, healthy: 0, unknown: 1, failingInScope: failing.length, inScope: failing.length };
  const since = iso(Date.now() - 20 * 60_000);
  return {
    id: '5f0c1d9a3be84a17',
    kind: 'Check',
    title: `payments/ledger-consistency fails in ${failing.length} of ${failing.length} clusters`,
    namespace: 'payments',
    name: 'ledger-consistency',
    widespread: true,
    silenced: false,
    flapping: false,
    firstSeen: since,
    lastChange: iso(Date.now() - 60_000),
    counts,
    differences: [{ label: 'agentVersion', value: '0.1.0', failing: 1, of: 1, failingOutside: 1, ofOutside: 1, builtIn: true }],
    changes: [{ at: iso(Date.now() - 21 * 60_000), kind: 'Definition', who: 'ci-main', what: 'definition.put', object: 'base-coredns-resolve' }],
    members: failing.map(({ cluster, message }) => ({ cluster, status: 'Failed', since, message, flapping: false })),
  };
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
  if (!values['quiet-fleet']) {
    trouble(hub);
    hub.setIncidents([incident(hub)]);
  }
  console.log(`${await hub.listen(Number(values.port))} tokens ${TOKEN} ${OPERATOR_TOKEN}`);
}
