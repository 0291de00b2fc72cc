// Checks and clusters for the unit tests.

import type { CheckStatus, CheckView, ClusterStatus, ClusterView } from './api';

export function check(cluster: string, name: string, status: CheckStatus = 'Succeeded', message = ''): CheckView {
  return {
    cluster,
    status,
    overdueSeconds: 0,
    uid: `${cluster}-${name}`,
    namespace: 'system',
    name,
    phase: status === 'Stale' || status === 'Overdue' ? 'Succeeded' : status,
    message,
    timeoutSeconds: 60,
    check: { succeeded: 1, failed: 0 },
  };
}

export function cluster(name: string, status: ClusterStatus = 'Connected', more: Partial<ClusterView> = {}): ClusterView {
  const checks = { Failed: 0, Invalid: 0, Overdue: 0, Stale: 0, Pending: 0, Stopped: 0, Succeeded: 0 };
  return {
    name,
    labels: {},
    annotations: {},
    status,
    backlog: 0,
    droppedReports: 0,
    clockSkewMs: 0,
    checks,
    ...more,
  };
}
