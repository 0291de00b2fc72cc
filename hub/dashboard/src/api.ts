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
  checks: Record<CheckStatus, number>;
}

export interface Totals {
  succeeded: number;
  failed: number;
  startedAt?: string;
  finishedAt?: string;
}

export interface CheckView {
  cluster: string;
  status: CheckStatus;
  overdueSeconds: number;
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
  definition?: { name: string; generation: number };
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
}

export interface RunPage {
  items: RunView[];
  next?: number;
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
  clusters: DefinitionClusterStatus[];
}

export type Event =
  | { type: 'reset' }
  | ({ type: 'cluster' } & ClusterView)
  | { type: 'clusterRemoved'; name: string }
  | ({ type: 'check' } & CheckView)
  | { type: 'checkRemoved'; cluster: string; namespace: string; name: string }
  | { type: 'definition'; name: string };

/** Every `event:` name of the stream. */
export const EVENT_NAMES: Event['type'][] = [
  'reset',
  'cluster',
  'clusterRemoved',
  'check',
  'checkRemoved',
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

const segment = encodeURIComponent;

export const getMe = () => call<Me>('GET', 'me');
export const login = (token: string) => call<Me>('POST', 'login', { token });
export const logout = () => call<void>('POST', 'logout');
export const getFleet = () => call<FleetSummary>('GET', 'fleet');
export const getClusters = () => list<ClusterView>('clusters');
export const getChecks = () => list<CheckView>('checks');
export const getCheck = (cluster: string, namespace: string, name: string) =>
  call<CheckView>('GET', `clusters/${segment(cluster)}/checks/${segment(namespace)}/${segment(name)}`);
export const getDefinitions = () => list<DefinitionView>('definitions');

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
