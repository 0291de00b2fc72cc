// What the page knows of the fleet, and how an event changes it. Pure: a fleet is never changed, only replaced.

import type { CheckView, ClusterView, Event } from './api';

export interface Fleet {
  readonly clusters: ReadonlyMap<string, ClusterView>;
  /** By `checkKey`. */
  readonly checks: ReadonlyMap<string, CheckView>;
}

export const EMPTY: Fleet = { clusters: new Map(), checks: new Map() };

/** Names hold no `/`, so this is unambiguous. */
export function checkKey(cluster: string, namespace: string, name: string): string {
  return `${cluster}/${namespace}/${name}`;
}

const keyOf = (check: CheckView) => checkKey(check.cluster, check.namespace, check.name);

/** The fleet that two complete lists describe. */
export function fromLists(clusters: ClusterView[], checks: CheckView[]): Fleet {
  return {
    clusters: new Map(clusters.map((cluster) => [cluster.name, cluster])),
    checks: new Map(checks.map((check) => [keyOf(check), check])),
  };
}

/** The fleet with a complete list of clusters that is newer: checks of clusters that are gone go too. */
export function withClusters(fleet: Fleet, clusters: ClusterView[]): Fleet {
  const names = new Set(clusters.map((cluster) => cluster.name));
  const checks = [...fleet.checks].filter(([, check]) => names.has(check.cluster));
  return {
    clusters: new Map(clusters.map((cluster) => [cluster.name, cluster])),
    checks: checks.length === fleet.checks.size ? fleet.checks : new Map(checks),
  };
}

/** Clusters whose own counts differ from their checks here: an event on its way, or one that was lost. */
export function disagreeing(fleet: Fleet): string[] {
  const counts = new Map<string, number>();
  const count = (cluster: string, status: string, by: number) => {
    const key = `${cluster}/${status}`;
    counts.set(key, (counts.get(key) ?? 0) + by);
  };
  for (const check of fleet.checks.values()) count(check.cluster, check.status, 1);
  for (const cluster of fleet.clusters.values()) {
    for (const [status, n] of Object.entries(cluster.checks)) count(cluster.name, status, -n);
  }
  const names = [...counts].filter(([, n]) => n !== 0).map(([key]) => key.slice(0, key.indexOf('/')));
  return [...new Set(names)];
}

/** The fleet after events, in their order. `reset` and `definition` change nothing here. */
export function merge(fleet: Fleet, events: readonly Event[]): Fleet {
  if (events.length === 0) return fleet;
  const clusters = new Map(fleet.clusters);
  const checks = new Map(fleet.checks);
  for (const event of events) {
    switch (event.type) {
      case 'cluster':
        clusters.set(event.name, { ...event, certificateEndsAt: clusters.get(event.name)?.certificateEndsAt });
        break;
      case 'clusterRemoved':
        clusters.delete(event.name);
        for (const [key, check] of checks) if (check.cluster === event.name) checks.delete(key);
        break;
      case 'check':
        checks.set(keyOf(event), event);
        break;
      case 'checkRemoved':
        checks.delete(checkKey(event.cluster, event.namespace, event.name));
        break;
      case 'reset':
      case 'windows':
      case 'incidents':
      case 'definition':
        break;
    }
  }
  return { clusters, checks };
}
