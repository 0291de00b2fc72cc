// How each status looks in words and signs, worst first. Colour is never the only sign.

import type { CheckStatus, ClusterStatus, DefinitionResult, Outcome } from './api';

export interface Look {
  /** One character. */
  sign: string;
  /** At most five letters, for dense cells. */
  short: string;
  /** For people. */
  means: string;
}

export const CHECK_STATUSES: CheckStatus[] = [
  'Failed',
  'Invalid',
  'Overdue',
  'Stale',
  'Pending',
  'Stopped',
  'Succeeded',
];

export const CLUSTER_STATUSES: ClusterStatus[] = ['Unreachable', 'Reconnecting', 'Pending', 'Connected'];

export const LOOKS: Record<CheckStatus | ClusterStatus | DefinitionResult | Outcome, Look> = {
  Failed: { sign: '✕', short: 'fail', means: 'the last run failed' },
  Invalid: { sign: '!', short: 'inval', means: 'the specification cannot be run' },
  Overdue: { sign: '◷', short: 'late', means: 'a run that was due did not happen' },
  Stale: { sign: '?', short: 'stale', means: 'the cluster is unreachable: the last result says nothing about now' },
  Pending: { sign: '…', short: 'pend', means: 'nothing is known yet' },
  Stopped: { sign: '‖', short: 'stop', means: 'paused on purpose' },
  Succeeded: { sign: '✓', short: 'ok', means: 'the last run succeeded, and that is recent' },
  Unreachable: { sign: '✕', short: 'gone', means: 'silent for longer than its lease' },
  Reconnecting: { sign: '↻', short: 'again', means: 'the connection is closed, the lease not yet over' },
  Connected: { sign: '✓', short: 'ok', means: 'an agent is connected and talks' },
  Applied: { sign: '✓', short: 'ok', means: 'the cluster has it' },
  Refused: { sign: '!', short: 'ref', means: "the agent's local policy forbids it" },
  Conflict: { sign: '≠', short: 'confl', means: 'a HealthCheck of that name exists that no definition made' },
};

export const checkRank = (status: CheckStatus) => CHECK_STATUSES.indexOf(status);
export const clusterRank = (status: ClusterStatus) => CLUSTER_STATUSES.indexOf(status);
