// What the pages show of a fleet: what is wrong, grouped; the grid; the filter. Pure.

import type { CheckStatus, CheckView, ClusterView } from './api';
import { isKnown } from './care';
import { checkKey, type Fleet } from './fleet';
import { CHECK_STATUSES, checkRank, clusterRank } from './status';

const natural = new Intl.Collator('en', { numeric: true });

export const byName = (a: string, b: string) => natural.compare(a, b);

/** Worst first, then by cluster, namespace and name. */
export function worstFirst(a: CheckView, b: CheckView): number {
  return (
    checkRank(a.status) - checkRank(b.status) ||
    byName(a.cluster, b.cluster) ||
    byName(a.namespace, b.namespace) ||
    byName(a.name, b.name)
  );
}

/** One check, wrong in the same way in one or many clusters. */
export interface Group {
  key: string;
  status: CheckStatus;
  namespace: string;
  name: string;
  /** By cluster. */
  checks: CheckView[];
  /** The message that most of them have. */
  message: string;
}

/** Failed, Invalid and Overdue checks: worst first, then the ones that most clusters share. */
export function groupWrong(checks: Iterable<CheckView>): Group[] {
  const groups = new Map<string, Group>();
  for (const check of checks) {
    const { status, namespace, name } = check;
    if (status !== 'Failed' && status !== 'Invalid' && status !== 'Overdue') continue;
    const key = `${status}/${namespace}/${name}`;
    const group = groups.get(key) ?? { key, status, namespace, name, checks: [], message: '' };
    group.checks.push(check);
    groups.set(key, group);
  }
  for (const group of groups.values()) {
    group.checks.sort((a, b) => byName(a.cluster, b.cluster));
    group.message = mostCommon(group.checks.map((check) => check.message ?? ''));
  }
  return [...groups.values()].sort(
    (a, b) =>
      checkRank(a.status) - checkRank(b.status) ||
      b.checks.length - a.checks.length ||
      byName(a.namespace, b.namespace) ||
      byName(a.name, b.name),
  );
}

function mostCommon(texts: string[]): string {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  let best = '';
  let most = 0;
  for (const [text, n] of counts) if (n > most) [best, most] = [text, n];
  return best;
}

/** The checks of one cluster of which nothing is known, and what was known last. */
export interface Unknown {
  cluster: string;
  stale: CheckView[];
  pending: CheckView[];
}

/** By cluster, the ones with most stale checks first. */
export function groupUnknown(checks: Iterable<CheckView>): Unknown[] {
  const clusters = new Map<string, Unknown>();
  for (const check of checks) {
    if (check.status !== 'Stale' && check.status !== 'Pending') continue;
    const entry = clusters.get(check.cluster) ?? { cluster: check.cluster, stale: [], pending: [] };
    (check.status === 'Stale' ? entry.stale : entry.pending).push(check);
    clusters.set(check.cluster, entry);
  }
  return [...clusters.values()].sort((a, b) => b.stale.length - a.stale.length || byName(a.cluster, b.cluster));
}

/** Clusters whose agent does not talk, worst first, the longest silent first. */
export function lostClusters(clusters: Iterable<ClusterView>): ClusterView[] {
  return [...clusters]
    .filter((cluster) => cluster.status !== 'Connected')
    .sort(
      (a, b) =>
        clusterRank(a.status) - clusterRank(b.status) ||
        (a.lastHeardAt ?? '').localeCompare(b.lastHeardAt ?? '') ||
        byName(a.name, b.name),
    );
}

export interface Numbers {
  clusters: number;
  connected: number;
  checks: Record<CheckStatus, number>;
  total: number;
  /**
   * Wrong things that nobody has said to know of: lost clusters, and wrong checks of the others. A lost cluster's stale
   * checks are one thing.
   */
  wrong: number;
  /** Wrong checks that are acknowledged or in a maintenance window. */
  known: number;
  /** Things of which nothing is known: Stale and Pending checks, and clusters that never connected. */
  unknown: number;
  /** When the hub last heard any cluster, Unix milliseconds. */
  newestMs: number | undefined;
  /** When the hub last heard the connected cluster that is silent longest. */
  oldestMs: number | undefined;
}

export function numbers(fleet: Fleet): Numbers {
  const checks = Object.fromEntries(CHECK_STATUSES.map((status) => [status, 0])) as Record<CheckStatus, number>;
  let wrong = 0;
  let known = 0;
  for (const check of fleet.checks.values()) {
    checks[check.status] += 1;
    const lost = isLost(fleet.clusters.get(check.cluster));
    if (checkRank(check.status) > (lost ? checkRank('Overdue') : checkRank('Stale'))) continue;
    if (isKnown(check)) known += 1;
    else wrong += 1;
  }
  let connected = 0;
  let unknown = checks.Stale + checks.Pending;
  let newestMs: number | undefined;
  let oldestMs: number | undefined;
  for (const cluster of fleet.clusters.values()) {
    if (isLost(cluster)) wrong += 1;
    if (cluster.status === 'Pending') unknown += 1;
    const heard = cluster.lastHeardAt ? Date.parse(cluster.lastHeardAt) : undefined;
    if (heard !== undefined) newestMs = Math.max(newestMs ?? heard, heard);
    if (cluster.status !== 'Connected') continue;
    connected += 1;
    if (heard !== undefined) oldestMs = Math.min(oldestMs ?? heard, heard);
  }
  const total = fleet.checks.size;
  return { clusters: fleet.clusters.size, connected, checks, total, wrong, known, unknown, newestMs, oldestMs };
}

function isLost(cluster: ClusterView | undefined): boolean {
  return cluster?.status === 'Unreachable' || cluster?.status === 'Reconnecting';
}

/** The document's title: what a tab says without being looked at. */
export function title({ wrong, known, unknown }: Pick<Numbers, 'wrong' | 'known' | 'unknown'>, cut: boolean): string {
  if (cut) return '(?) No live data – Fleet health';
  if (wrong > 0) return `(${wrong}) wrong – Fleet health`;
  if (known > 0) return `(${known}) known – Fleet health`;
  return unknown > 0 ? `(${unknown}) unknown – Fleet health` : 'Fleet health';
}

/**
 * A filter: every word must be part of the cluster's name, of `namespace/name`, of the status or of a label
 * `key=value` of the cluster.
 */
export type Filter = (cluster: ClusterView | undefined, check?: CheckView) => boolean;

export function filterOf(text: string): Filter {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return (cluster, check) =>
    words.every((word) => clusterTexts(cluster).some((t) => t.includes(word)) || checkHas(check, word));
}

const textsOfCluster = new WeakMap<ClusterView, string[]>();

function clusterTexts(cluster: ClusterView | undefined): string[] {
  if (!cluster) return [];
  let texts = textsOfCluster.get(cluster);
  if (!texts) {
    const labels = Object.entries(cluster.labels).map(([key, value]) => `${key}=${value}`);
    texts = [cluster.name, cluster.status, ...labels].map((t) => t.toLowerCase());
    textsOfCluster.set(cluster, texts);
  }
  return texts;
}

function checkHas(check: CheckView | undefined, word: string): boolean {
  if (!check) return false;
  return (
    `${check.namespace}/${check.name}`.toLowerCase().includes(word) ||
    check.status.toLowerCase().includes(word) ||
    check.cluster.toLowerCase().includes(word)
  );
}

/** How an agent's version differs from that of most of the others; empty where it does not, or where it is not known. */
export function versionOf(clusters: Iterable<ClusterView>, cluster: ClusterView | undefined): string {
  const versions = [...clusters].map((other) => other.agentVersion ?? '').filter(Boolean);
  const most = mostCommon(versions);
  return cluster?.agentVersion && most !== cluster.agentVersion ? `most others have ${most}` : '';
}

export interface Grid {
  columns: { key: string; namespace: string; name: string }[];
  rows: { cluster: ClusterView; cells: (Cell | undefined)[] }[];
}

export interface Cell {
  check: CheckView;
  /** Whether the filter matches; the others are there only since their row and column are. */
  matches: boolean;
}

/** Clusters by name, checks by namespace and name; rows and columns in which nothing matches are left out. */
export function gridOf(fleet: Fleet, filter: Filter): Grid {
  const columns = new Map<string, { key: string; namespace: string; name: string }>();
  const matching = new Set<CheckView>();
  const shown = new Set<string>();
  for (const check of fleet.checks.values()) {
    if (!filter(fleet.clusters.get(check.cluster), check)) continue;
    matching.add(check);
    shown.add(check.cluster);
    const key = `${check.namespace}/${check.name}`;
    if (!columns.has(key)) columns.set(key, { key, namespace: check.namespace, name: check.name });
  }
  const sorted = [...columns.values()].sort((a, b) => byName(a.namespace, b.namespace) || byName(a.name, b.name));
  const rows = [...fleet.clusters.values()]
    .filter((cluster) => shown.has(cluster.name) || filter(cluster))
    .sort((a, b) => byName(a.name, b.name))
    .map((cluster) => ({
      cluster,
      cells: sorted.map(({ namespace, name }) => {
        const check = fleet.checks.get(checkKey(cluster.name, namespace, name));
        return check && { check, matches: matching.has(check) };
      }),
    }));
  return { columns: sorted, rows };
}
