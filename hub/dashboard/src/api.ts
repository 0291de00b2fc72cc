// The hub's REST API as the page uses it: the types of core/src/view.rs, core/src/state.rs and core/src/run.rs, and
// one function for each call. Times are RFC 3339 texts.

import { observeDate } from './time.svelte';

export type Role = 'viewer' | 'operator' | 'admin';

export interface Me {
  name: string;
  role: Role;
}

export type ClusterStatus = 'Unreachable' | 'Reconnecting' | 'Pending' | 'Connected';
export type CheckStatus = 'Failed' | 'Invalid' | 'Overdue' | 'Stale' | 'Pending' | 'Stopped' | 'Succeeded';
export type Phase = 'Pending' | 'Succeeded' | 'Failed' | 'Stopped' | 'Invalid';
export type RunKind = 'healthCheck' | 'remedy';
export type Outcome = 'Succeeded' | 'Failed';

export interface FleetSummary {
  hubVersion: string;
  clusters: Record<ClusterStatus, number>;
  checks: Record<CheckStatus, number>;
  definitions: number;
}

export interface ClusterView {
  name: string;
  labels: Record<string, string>;
  annotations: Record<string, string>;
  status: ClusterStatus;
  message?: string;
  lastHeardAt?: string;
  agentVersion?: string;
  kubernetesVersion?: string;
  backlog: number;
  droppedReports: number;
  clockSkewMs: number;
  refusedChecks?: number;
  /** Only in lists: events do not carry it. */
  certificateEndsAt?: string;
  /** Absent: nothing is known. */
  selfTest?: SelfTest;
  /** What the cluster lets the hub do, in words; absent where its agent does not say. */
  policy?: { name: string; value: string }[];
  checks: Record<CheckStatus, number>;
}

export interface SelfTest {
  outcome: 'Succeeded' | 'Failed' | 'TimedOut' | 'NotRun' | 'Unknown';
  message: string;
  at: string;
}

export interface Totals {
  succeeded: number;
  failed: number;
  startedAt?: string;
  finishedAt?: string;
}

export interface Health {
  since?: string;
  recent?: string;
  soft?: boolean;
  flapping?: boolean;
  changePercent?: number;
}

/** What people say of a check. */
export interface Care {
  maintenance?: string;
  acknowledgement?: { by: string; comment?: string; at: string; expiresAt: string };
}

export interface CheckView {
  cluster: string;
  status: CheckStatus;
  overdueSeconds: number;
  health?: Health;
  care?: Care;
  uid: string;
  namespace: string;
  name: string;
  description?: string;
  phase: Phase;
  message?: string;
  schedule?: string;
  running?: { kind: RunKind; slot: string; workflow: string };
  nextSlot?: string;
  timeoutSeconds: number;
  check: Totals;
  remedy?: Totals;
  remedyStatus?: string;
  samples?: { metric: string; help?: string; value: number }[];
  refusedSamples?: number;
  definition?: { name: string; generation: number };
  pauses?: Pause[];
  remedyBudget?: { limit: number; left: number; resetsAt?: string };
}

export type Subject = 'checks' | 'remedies';

/** A pause that concerns a check. */
export interface Pause {
  id: string;
  subject: Subject;
  namespace?: string;
  name?: string;
  until: string;
  reason: string;
  by: string;
}

export interface RunView {
  id: number;
  cluster: string;
  recordedAt: string;
  checkUid: string;
  kind: RunKind;
  slot: string;
  namespace: string;
  name: string;
  workflow?: string;
  outcome: Outcome;
  reason?: string;
  message?: string;
  startedAt: string;
  finishedAt: string;
  warning?: string;
  logTail?: string;
}

/** Runs of a cluster that never came, behind the run `after`; `reports` is 0 where nobody knows how many. */
export interface GapView {
  cluster: string;
  after: number;
  reports: number;
  noticedAt: string;
}

export interface RunPage {
  items: RunView[];
  gaps?: GapView[];
  next?: number;
}

export interface UptimeView {
  cluster?: string;
  namespace?: string;
  name?: string;
  label?: string;
  checks: number;
  ratio?: number;
  budget?: { seconds: number; leftSeconds: number };
  upSeconds: number;
  downSeconds: number;
  unknownSeconds: number;
  stoppedSeconds: number;
  maintenanceSeconds?: number;
  outages: number;
}

export interface UptimePage {
  from: string;
  to: string;
  items: UptimeView[];
  total: number;
}

export type DefinitionResult = 'Applied' | 'Refused' | 'Conflict' | 'Failed';

export interface DefinitionClusterStatus {
  cluster: string;
  result?: DefinitionResult;
  observedGeneration: number;
  message?: string;
}

export interface DefinitionView {
  name: string;
  generation: number;
  definition: unknown;
  git?: GitOrigin;
  /** The resource of the hub's own cluster that it comes from, NAMESPACE/NAME. */
  resource?: string;
  clusters: DefinitionClusterStatus[];
}

/** Where in the watched folder something is written; absent where it is a person's. */
export interface GitOrigin {
  file: string;
  revision?: string;
}

export interface CommandRequest {
  action: 'run' | 'pause' | 'resume';
  subject?: Subject;
  clusters: string[];
  namespace?: string;
  check?: string;
  seconds?: number;
  reason?: string;
}

export type CommandOutcome = 'Delivered' | 'Refused' | 'Unreachable' | 'TimedOut';

/** What became of a command in one cluster; the layer is who refused. */
export interface CommandResult {
  cluster: string;
  outcome: CommandOutcome;
  layer?: 'hub' | 'policy' | 'agent' | 'kubernetes';
  message: string;
}

export interface CommandReport {
  id: string;
  at: string;
  command: string;
  results: CommandResult[];
}

/** A maintenance window: once, with `from` and `to`, or again and again, with `cron` and `durationSeconds`. */
export interface WindowView {
  name: string;
  selector?: string;
  cluster?: string;
  namespace?: string;
  check?: string;
  from?: string;
  to?: string;
  cron?: string;
  timeZone?: string;
  durationSeconds?: number;
  comment?: string;
  openUntil?: string;
  changesAt?: string;
  git?: GitOrigin;
}

export type ChangeKind =
  | 'definition'
  | 'cluster'
  | 'command'
  | 'window'
  | 'acknowledgement'
  | 'authority'
  | 'version'
  | 'status';

export interface ChangeView {
  at: string;
  kind: ChangeKind;
  action?: string;
  who?: string;
  cluster?: string;
  namespace?: string;
  name?: string;
  message?: string;
  status?: CheckStatus;
  was?: CheckStatus;
  maintenance?: boolean;
}

export interface ChangePage {
  items: ChangeView[];
  next?: string;
}

/** What fails in one or more clusters for what seems one cause. The hub orders, counts and names them. */
export interface IncidentView {
  id: string;
  kind: 'Check' | 'Unreachable';
  title: string;
  namespace?: string;
  name?: string;
  definition?: string;
  /** It fails in so many clusters that it is more than a failure of each. */
  widespread: boolean;
  /** Everything in it is acknowledged or in maintenance. */
  silenced: boolean;
  flapping: boolean;
  firstSeen: string;
  lastChange: string;
  recoveredAt?: string;
  closedAt?: string;
  closed?: 'Recovered' | 'Withdrawn' | 'Merged';
  counts: { failing: number; healthy: number; unknown: number; failingInScope: number; inScope: number };
  scope?: { label: string; value: string };
  differences?: IncidentDifference[];
  changes?: { at: string; kind: string; who?: string; what: string; object: string }[];
  /** At most 100 of them; `counts` has the number. */
  members: IncidentMember[];
}

/** A label that sets the failing clusters apart from the others. */
export interface IncidentDifference {
  label: string;
  value: string;
  failing: number;
  of: number;
  failingOutside: number;
  ofOutside: number;
  /** No label of the cluster, but a version or generation. */
  builtIn?: boolean;
}

export interface IncidentMember {
  cluster: string;
  status: CheckStatus | ClusterStatus;
  since?: string;
  message?: string;
  flapping?: boolean;
  silencedBy?: 'Maintenance' | 'Acknowledgement';
}

export type Event =
  | { type: 'reset' }
  | ({ type: 'cluster' } & ClusterView)
  | { type: 'clusterRemoved'; name: string }
  | ({ type: 'check' } & CheckView)
  | { type: 'checkRemoved'; cluster: string; namespace: string; name: string }
  | { type: 'windows' }
  | { type: 'incidents' }
  | { type: 'definition'; name: string };

/** Every `event:` name of the stream. */
export const EVENT_NAMES: Event['type'][] = [
  'reset',
  'cluster',
  'clusterRemoved',
  'check',
  'checkRemoved',
  'windows',
  'incidents',
  'definition',
];

export const EVENTS_PATH = '/api/v1/events';

/** An answer that is not 2xx; `message` is the problem's own text. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const TIMEOUT_MS = 20_000;

async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const response = await fetch(`/api/v1/${path}`, {
    method,
    headers: body === undefined ? {} : { 'content-type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: 'no-store',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  observeDate(response.headers.get('date'));
  const text = await response.text();
  if (!response.ok) throw new ApiError(response.status, problemText(text) ?? `the hub answered ${response.status}`);
  return (text ? JSON.parse(text) : undefined) as T;
}

function problemText(text: string): string | undefined {
  try {
    const problem = JSON.parse(text) as { title?: string; detail?: string };
    return problem.detail || problem.title;
  } catch {
    return undefined;
  }
}

async function list<T>(path: string): Promise<T[]> {
  return (await call<{ items: T[] }>('GET', path)).items;
}

/** The largest page that the hub gives. */
const MAX_PAGE = 10_000;

/** A whole list. The first page is as large as the hub likes, so that a small fleet is one request. */
async function pages<T>(path: string): Promise<T[]> {
  const items: T[] = [];
  let query = '';
  for (;;) {
    const page = await call<{ items: T[]; next?: string | null }>('GET', `${path}${query}`);
    items.push(...page.items);
    if (!page.next) return items;
    const further = `?limit=${MAX_PAGE}&after=${segment(page.next)}`;
    if (page.items.length === 0 || further === query) throw new ApiError(200, `the list ${path} has no end`);
    query = further;
  }
}

const segment = encodeURIComponent;

export const getMe = () => call<Me>('GET', 'me');
export const login = (token: string) => call<Me>('POST', 'login', { token });
export const getLoginOptions = () => call<{ issuer?: string | null }>('GET', 'login');
export const logout = () => call<void>('POST', 'logout');
export const getFleet = () => call<FleetSummary>('GET', 'fleet');
export const getClusters = () => pages<ClusterView>('clusters');
export const getChecks = () => pages<CheckView>('checks');
export const getCheck = (cluster: string, namespace: string, name: string) =>
  call<CheckView>('GET', `clusters/${segment(cluster)}/checks/${segment(namespace)}/${segment(name)}`);
export const getDefinitions = () => pages<DefinitionView>('definitions');

export interface RunQuery {
  cluster: string;
  namespace: string;
  name: string;
  kind?: RunKind;
  outcome?: Outcome;
  limit: number;
  before?: number;
}

export function getRuns(query: RunQuery): Promise<RunPage> {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== undefined) params.set(key, String(value));
  return call<RunPage>('GET', `runs?${params}`);
}

/** The run at this place of the history; undefined where this check has none there. */
export async function getRun(query: Omit<RunQuery, 'limit' | 'before'>, id: number): Promise<RunView | undefined> {
  const run = (await getRuns({ ...query, limit: 1, before: id + 1 })).items[0];
  return run?.id === id ? run : undefined;
}

/** The open incidents, worst first; or with the closed ones, newest first. */
export const getIncidents = (all = false) => list<IncidentView>(all ? 'incidents?all=true&limit=100' : 'incidents');
export const getWindows = () => list<WindowView>('windows');

export interface ChangeQuery {
  from?: string;
  cluster?: string;
  kind?: ChangeKind;
  limit: number;
  before?: string;
}

export function getChanges(query: ChangeQuery): Promise<ChangePage> {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== undefined) params.set(key, String(value));
  return call<ChangePage>('GET', `changes?${params}`);
}

export const giveCommand = (request: CommandRequest) => call<CommandReport>('POST', 'commands', request);

export const acknowledge = (check: CheckView, comment: string, expiresInSeconds: number) =>
  call<CheckView>('PUT', acknowledgementOf(check), { comment, expiresInSeconds });
export const unacknowledge = (check: CheckView) => call<void>('DELETE', acknowledgementOf(check));

const acknowledgementOf = ({ cluster, namespace, name }: CheckView) =>
  `clusters/${segment(cluster)}/checks/${segment(namespace)}/${segment(name)}/acknowledgement`;

export function getUptime(query: { cluster: string; namespace: string; name: string; window: string }): Promise<UptimePage> {
  return call<UptimePage>('GET', `uptime?${new URLSearchParams(query)}`);
}
