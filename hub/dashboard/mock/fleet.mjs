// A made-up fleet for the mock hub: the same for the same arguments, but for the times, which are relative to now.

const PLACES = ['prod-eu-west-1', 'prod-us-east-1', 'edge-berlin-3', 'prod-ap-south-1', 'staging-eu-west-1', 'edge-lyon-1'];

/** Namespace -> checks there. Ten by ten. */
const CHECKS = {
  'kube-system': 'apiserver-latency coredns-resolve etcd-quorum kubelet-ready node-egress node-ntp-drift pod-start-time scheduler-binding service-vip webhook-roundtrip',
  ingress: 'canary-http canary-http2 canary-websocket cert-expiry external-dns-record gateway-attach lb-health rate-limit redirect-https tls-handshake',
  storage: 'backup-age csi-attach nfs-latency object-store-put pvc-provision pvc-resize snapshot-create snapshot-restore volume-detach wal-archive',
  payments: 'acquirer-ping card-tokenize ledger-consistency outbox-lag payout-batch queue-depth reconcile-daily refund-path sandbox-charge webhook-delivery',
  identity: 'admin-login jwks-age ldap-bind mfa-push oidc-discovery password-reset saml-metadata session-store token-issue token-revoke',
  observability: 'alert-path dashboards-up log-ingest log-query metric-scrape prom-remote-write span-ingest span-query statuspage-push synthetic-user',
  messaging: 'broker-quorum consumer-lag dlq-empty mirror-offsets partition-balance produce-roundtrip schema-registry stream-restore topic-create topic-policy',
  registry: 'gc-last-run image-pull image-push image-scan mirror-sync proxy-cache quota signature-verify sbom-attach storage-free',
  batch: 'cron-drift gpu-alloc job-start node-pool-grow node-pool-shrink priority-preempt queue-wait quota-headroom spot-drain workflow-gc',
  security: 'audit-log-sink falco-alive kms-decrypt netpol-deny opa-bundle psa-enforce rbac-escalation secret-rotation vault-seal vault-token-renew',
};

const MESSAGES = {
  Failed: [
    'lookup kubernetes.default.svc.cluster.local: i/o timeout after 5 s (3 of 3 resolvers)',
    'step http-probe failed: expected status 200, got 503 from canary.shop.example',
    'deadline of 120 s exceeded in step restore-snapshot',
    'ledger differs by 2 entries for 2026-11-21',
  ],
  Invalid: ['spec.schedule: "*/5 * * *" has 4 fields, 5 are needed'],
};

/** A generator of numbers in [0, 1) that is the same each time (mulberry32). */
export function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const at = (milliseconds) => new Date(Math.floor(milliseconds / 1000) * 1000).toISOString().replace('.000Z', 'Z');
const uid = (text) => `5e0f${[...text].reduce((h, c) => (h * 31 + c.charCodeAt(0)) >>> 0, 7).toString(16).padStart(8, '0')}`;

/** `clusters` x `checks` that are all well, the last run within the last minutes. */
export function makeFleet({ clusters = 3, checks = 100, now = Date.now(), seed = 1 } = {}) {
  const rand = random(seed);
  const names = Array.from({ length: clusters }, (_, i) => PLACES[i] ?? `edge-site-${i + 1}`);
  const all = Object.entries(CHECKS).flatMap(([namespace, list]) => list.split(' ').map((name) => ({ namespace, name })));
  while (all.length < checks) all.push({ namespace: 'extra', name: `check-${all.length + 1}` });
  return {
    clusters: names.map((name) => ({
      name,
      labels: { environment: name.split('-')[0], region: name.split('-').slice(1).join('-') },
      annotations: {},
      status: 'Connected',
      lastHeardAt: at(now - 2000),
      agentVersion: '0.1.0',
      kubernetesVersion: name.startsWith('edge') ? 'v1.33.4+k3s1' : 'v1.33.5',
      backlog: 0,
      droppedReports: 0,
      clockSkewMs: Math.round(rand() * 120 - 60),
      selfTest: { outcome: 'Succeeded', message: 'Argo carried out the workflow health/active-monitor-self-test-x7k2p; no pod was started', at: at(now - 9 * 86_400_000) },
      certificateEndsAt: at(now + 17 * 3_600_000 - 90_000 * name.length),
      policy: name.startsWith('staging') ? undefined : makePolicy(name),
      checks: {},
    })),
    checks: names.flatMap((cluster) => all.slice(0, checks).map((check) => makeCheck(cluster, check, now, rand))),
  };
}

const makePolicy = (cluster) => Object.entries({
  namespaces: 'health, kube-system',
  remedies: String(!cluster.startsWith('edge')),
  levels: 'namespace',
  accounts: 'any',
  sources: 'inline, url',
  rules: 'get,list leases of coordination.k8s.io',
  minPeriodSeconds: '10',
  maxChecks: '200',
  obey: 'run-now, pause, pause-remedies, self-test',
  'longest-pause-hours': '24',
}).map(([name, value]) => ({ name, value }));

function makeCheck(cluster, { namespace, name }, now, rand) {
  const period = [60, 60, 300, 300, 900, 3600][Math.floor(rand() * 6)];
  const slot = Math.floor(now / 1000 / period) * period * 1000;
  const started = slot + 400;
  const took = 2000 + rand() * 20_000;
  const finished = started + took > now ? started - period * 1000 + took : started + took;
  const total = Math.floor((86_400 * 9) / period);
  const check = {
    cluster,
    status: 'Succeeded',
    overdueSeconds: 0,
    uid: uid(`${cluster}/${namespace}/${name}`),
    namespace,
    name,
    phase: 'Succeeded',
    schedule: period === 3600 ? '17 * * * *' : `@every ${period}s`,
    nextSlot: at(slot + period * 1000),
    timeoutSeconds: Math.min(period, 300),
    check: { succeeded: total, failed: Math.floor(rand() * 4), startedAt: at(finished - took), finishedAt: at(finished) },
    remedyStatus: '',
  };
  if (name === 'coredns-resolve') {
    check.description = 'Resolves internal and external names through every CoreDNS replica.';
    check.remedy = { succeeded: 2, failed: 0, startedAt: at(now - 86_400_000), finishedAt: at(now - 86_380_000) };
    check.remedyStatus = 'Succeeded';
    check.samples = [
      { metric: 'resolve_seconds_p99', help: '99th percentile of a lookup, seconds', value: 0.0182 },
      { metric: 'replicas_answering', help: 'CoreDNS replicas that answered', value: 2 },
    ];
  }
  if (namespace === 'kube-system') check.definition = { name: `base-${name}`, generation: 4 };
  return check;
}

/** The same check with another status, as the hub would say it. */
export function changed(check, status, { message, now = Date.now() } = {}) {
  const next = structuredClone(check);
  next.status = status;
  if (status !== 'Stale' && status !== 'Overdue') next.phase = status;
  next.message = message ?? (MESSAGES[status]?.[check.name.length % MESSAGES[status].length] || undefined);
  if (status === 'Failed') next.check.failed += 1;
  if (status === 'Succeeded') next.check.succeeded += 1;
  if (status === 'Failed' || status === 'Succeeded') {
    next.check.startedAt = at(now - 6000);
    next.check.finishedAt = at(now - 1000);
  }
  if (status === 'Invalid') Object.assign(next, { schedule: undefined, nextSlot: undefined });
  if (status === 'Stopped') Object.assign(next, { schedule: undefined, nextSlot: undefined });
  if (status === 'Pending') next.check = { succeeded: 0, failed: 0 };
  if (status === 'Overdue') {
    next.overdueSeconds = 1260;
    next.nextSlot = at(now - 1_260_000 - check.timeoutSeconds * 1000);
    next.message = 'the run that was due has not been seen';
  }
  return next;
}

/** The last runs of a check, newest first, that fit what the check says. */
export function makeRuns(check, now = Date.now(), count = 240) {
  if (!check.check.finishedAt) return [];
  const rand = random(check.uid.length + check.name.length);
  const period = Number(check.schedule?.match(/every (\d+)s/)?.[1] ?? 3600);
  const newest = Math.floor(Date.parse(check.check.startedAt) / 1000 / period) * period * 1000;
  const runs = [];
  for (let i = 0; i < count; i += 1) {
    const slot = newest - i * period * 1000;
    const failed = check.phase === 'Failed' ? i < 4 : i > 4 && rand() < 0.02;
    const took = failed ? 5000 + rand() * 9000 : 2500 + rand() * 2600;
    const run = {
      cluster: check.cluster,
      checkUid: check.uid,
      kind: 'healthCheck',
      slot: at(slot),
      namespace: check.namespace,
      name: check.name,
      workflow: `${check.namespace}/${check.name}-${Math.floor(slot / 1000).toString(36)}`,
      outcome: failed ? 'Failed' : 'Succeeded',
      startedAt: at(slot + 1000),
      finishedAt: new Date(slot + 1000 + took).toISOString(),
      recordedAt: new Date(slot + 1500 + took).toISOString(),
    };
    if (failed) {
      const message = check.message ?? MESSAGES.Failed[0];
      Object.assign(run, { reason: 'WorkflowFailed', message, logTail: `main: resolving 3 names\nmain: ${message}\nmain: exit 1\n` });
    }
    if (failed && check.remedy) {
      const started = slot + took + 3000;
      runs.push({
        ...run,
        kind: 'remedy',
        slot: run.startedAt,
        logTail: undefined,
        outcome: 'Succeeded',
        reason: undefined,
        message: undefined,
        workflow: `${run.workflow}-remedy`,
        startedAt: at(started),
        finishedAt: new Date(started + 8000).toISOString(),
        recordedAt: new Date(started + 8500).toISOString(),
      });
    }
    runs.push(run);
  }
  return runs.map((run, i) => ({ ...run, id: 100_000 - i }));
}

const SOURCE = `apiVersion: argoproj.io/v1alpha1
kind: Workflow
spec:
  entrypoint: check
  templates:
    - name: check
      container:
        image: \${cluster.annotations.registry}/probe:1.8
        args: [resolve, kubernetes.default.svc, example.com]
`;

/** Windows of each kind: open, to come, over. */
export function makeWindows(now = Date.now()) {
  const hour = 3_600_000;
  return [
    {
      name: 'ingress-upgrade',
      selector: 'environment=prod',
      namespace: 'ingress',
      from: at(now - hour),
      to: at(now + 2 * hour),
      comment: 'gateway 1.4',
      openUntil: at(now + 2 * hour),
      changesAt: at(now + 2 * hour),
    },
    {
      name: 'patch-sunday',
      selector: 'environment in (edge,prod)',
      cron: '0 2 * * SUN',
      timeZone: 'Europe/Berlin',
      durationSeconds: 7200,
      comment: 'kernel updates',
      git: { file: 'windows/patch-sunday.yaml', revision: '5e574a31c0ffee' },
      changesAt: at(now + 61 * hour),
    },
    { name: 'move-lyon', cluster: 'edge-lyon-1', from: at(now - 90 * hour), to: at(now - 80 * hour) },
  ];
}

/** What people did in the last hours. */
export function makeChanges(fleet, now = Date.now()) {
  const [a, b] = fleet.clusters.map((cluster) => cluster.name);
  const ago = (minutes) => at(now - minutes * 60_000);
  const result = (cluster, words) => ({ at: ago(9), kind: 'command', action: 'command.pause.result', who: 'ann', cluster, message: `pause remedies of the whole cluster for 7200 s: network work: ${words}` });
  return [
    { at: ago(4), kind: 'acknowledgement', action: 'check.acknowledge', who: 'ann', cluster: a, namespace: 'storage', name: 'snapshot-restore' },
    result(a, 'Delivered: paused until 04:12'),
    result(b, 'Refused by policy: this cluster obeys no pause of remedies'),
    { at: ago(9), kind: 'command', action: 'command.pause', who: 'ann', message: `pause remedies of the whole cluster for 7200 s: network work; in ${a}, ${b}` },
    { at: ago(21), kind: 'definition', action: 'definition.put', who: 'ci-main', name: 'base-coredns-resolve' },
    { at: ago(58), kind: 'window', action: 'window.put', who: 'ben', name: 'ingress-upgrade' },
    { at: ago(75), kind: 'cluster', action: 'cluster.patch', who: 'ben', cluster: b },
    { at: ago(130), kind: 'version', cluster: b, message: 'agent 0.0.9, Kubernetes v1.33.5; before: agent 0.0.9, Kubernetes v1.32.8' },
    { at: ago(190), kind: 'status', cluster: b, namespace: 'registry', name: 'gc-last-run', was: 'Failed', status: 'Succeeded' },
    { at: ago(205), kind: 'status', cluster: b, namespace: 'registry', name: 'gc-last-run', was: 'Succeeded', status: 'Failed' },
    { at: ago(1400), kind: 'window', action: 'window.put', who: 'ann', name: 'patch-sunday' },
  ];
}

/** Definitions of the kube-system checks, with the troubles that people meet. */
export function makeDefinitions(fleet) {
  const names = [...new Set(fleet.checks.flatMap((check) => (check.definition ? [check.definition.name] : [])))];
  return names.map((name, i) => ({
    name,
    generation: 4,
    git: i === 0 ? { file: `checks/${name}.yaml`, revision: '5e574a31c0ffee' } : undefined,
    definition: {
      apiVersion: 'fleet.activemonitor.keikoproj.io/v1alpha1',
      kind: 'FleetHealthCheck',
      metadata: { name },
      spec: {
        clusterSelector: {},
        template: {
          metadata: { namespace: 'kube-system', name: name.slice('base-'.length) },
          spec: {
            repeatAfterSec: 60,
            level: 'cluster',
            workflow: {
              generateName: `${name}-`,
              workflowtimeout: 60,
              resource: { namespace: 'health', serviceAccount: 'fleet-checks', source: { inline: SOURCE } },
            },
          },
        },
      },
    },
    clusters: fleet.clusters.map((cluster) => {
      const status = { cluster: cluster.name, result: 'Applied', observedGeneration: 4, message: '' };
      if (cluster.status === 'Unreachable') return { cluster: cluster.name, observedGeneration: 3 };
      if (i === 1 && cluster.name.startsWith('prod-us'))
        return { ...status, result: 'Conflict', message: 'kube-system/coredns-resolve exists and no definition made it' };
      if (i === 4 && cluster.name.startsWith('prod-eu'))
        return { ...status, result: 'Refused', message: 'the local policy allows no hostNetwork' };
      return status;
    }),
  }));
}
