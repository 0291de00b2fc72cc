// The timeline of what changed, what belongs together as one row. Pure.

import type { ChangeView, CheckStatus, IncidentView } from './api';
import { count } from './format';

export interface Row {
  key: string;
  /** Of the newest change in it. */
  at: string;
  /** Left what people did and what runs where, right what became of the checks. */
  side: 'did' | 'became';
  status?: CheckStatus;
  changes: ChangeView[];
  /** Of an incident that began or was closed there. */
  incident?: IncidentView;
}

/** Changes that follow each other this fast are one thing. */
const TOGETHER_MS = 60_000;

/** Whether a change of a status says that something went wrong, or that it is over. */
export function matters({ status, was }: ChangeView): boolean {
  const isWrong = (s: CheckStatus | undefined) => s === 'Failed' || s === 'Invalid' || s === 'Overdue' || s === 'Stale';
  return isWrong(status) || isWrong(was);
}

/** Newest first, as the changes are. Statuses of the same kind, and the answers to a command, are one row each. */
export function timeline(changes: ChangeView[]): Row[] {
  const rows: Row[] = [];
  const newest: Record<Row['side'], Row | undefined> = { did: undefined, became: undefined };
  for (const change of changes) {
    const side = change.kind === 'status' ? 'became' : 'did';
    const last = newest[side];
    const before = last?.changes.at(-1);
    if (last && before && isOne(before, change)) {
      last.changes.push(change);
      continue;
    }
    const key = `${change.at} ${change.kind} ${change.cluster} ${change.namespace} ${change.name} ${change.action} ${rows.length}`;
    const row: Row = { key, at: change.at, side, status: change.status, changes: [change] };
    rows.push(row);
    newest[side] = row;
  }
  return rows;
}

/** The rows with the incidents among them, as far back as the rows go, or all of them where there are no older rows. */
export function withIncidents(rows: Row[], incidents: IncidentView[], isAll: boolean): Row[] {
  const oldest = isAll ? '' : (rows.at(-1)?.at ?? '');
  const of = (incident: IncidentView): Row[] => {
    const row = (at: string, what: string): Row => ({ key: `${what} ${incident.id} ${at}`, at, side: 'became', changes: [], incident });
    return [row(incident.firstSeen, 'began'), ...(incident.closedAt ? [row(incident.closedAt, 'closed')] : [])];
  };
  const added = incidents.flatMap(of).filter((row) => Date.parse(row.at) >= (Date.parse(oldest) || 0));
  return [...rows, ...added].sort((a, b) => Date.parse(b.at) - Date.parse(a.at));
}

function isOne(newer: ChangeView, older: ChangeView): boolean {
  if (Date.parse(newer.at) - Date.parse(older.at) > TOGETHER_MS || newer.kind !== older.kind) return false;
  if (newer.kind === 'status') return newer.status === older.status && newer.maintenance === older.maintenance;
  if (newer.kind === 'version') return newer.message === older.message;
  return newer.action === older.action && newer.who === older.who && (newer.action?.endsWith('.result') ?? false);
}

/** `health/dns on eu-1`, `health/dns on 3 clusters`, `100 checks on eu-1`, `12 checks on 4 clusters`. */
export function where(changes: ChangeView[]): string {
  const clusters = new Set(changes.map((change) => change.cluster));
  const checks = new Set(changes.map((change) => `${change.namespace}/${change.name}`));
  const [cluster, check] = [[...clusters][0], [...checks][0]];
  const what = checks.size === 1 ? check : count(changes.length, 'check');
  return `${what} on ${clusters.size === 1 ? cluster : count(clusters.size, 'cluster')}`;
}

const DONE: Record<string, string> = {
  'definition.put': 'definition written',
  'definition.delete': 'definition deleted',
  'cluster.add': 'cluster added',
  'cluster.patch': 'labels changed',
  'cluster.remove': 'cluster removed',
  'cluster.token': 'new enrolment token',
  'cluster.rebind': 'cluster rebound',
  'cluster.enrol': 'agent enrolled',
  'cluster.pending': 'agent waits for approval',
  'cluster.approve': 'agent approved',
  'cluster.deny': 'agent denied',
  'cluster.self-test': 'self-test',
  'window.put': 'window written',
  'window.delete': 'window deleted',
  'check.acknowledge': 'acknowledged',
  'check.unacknowledge': 'acknowledgement taken back',
  'ca.introduce': 'new CA introduced',
  'ca.switch': 'CA switched',
  'ca.end': 'old CA ended',
};

/** What was done, in words; an action that is not known here as the audit log says it. */
export function done({ kind, action }: ChangeView): string {
  if (kind === 'version') return 'version';
  if (kind === 'command') return action?.endsWith('.result') ? 'answer' : 'command';
  return DONE[action ?? ''] ?? action ?? kind;
}
