// What people and remedies do about a check that is wrong. Pure.

import type { CheckView, IncidentView } from './api';
import { clockTime } from './format';

/** Somebody said so: it calls for nobody, and it is wrong all the same. */
export const isKnown = (check: CheckView) =>
  check.care?.maintenance !== undefined || check.care?.acknowledgement !== undefined;

/** The checks that stand in none of the incidents: those are shown as one there. */
export function apartFrom(checks: CheckView[], incidents: IncidentView[]): CheckView[] {
  const shown = incidents.filter((incident) => incident.kind === 'Check');
  const isIn = (check: CheckView, { namespace, name, members, counts }: IncidentView) =>
    check.namespace === namespace &&
    check.name === name &&
    // The hub names at most 100 members.
    (members.some((member) => member.cluster === check.cluster) || (counts.failing > members.length && check.status === 'Failed'));
  return checks.filter((check) => !shown.some((incident) => isIn(check, incident)));
}

export interface Remedy {
  /** `bad`: no remedy will help by itself. */
  look: 'none' | 'busy' | 'done' | 'bad';
  text: string;
}

/** What the remedy of a failed check does or did, in few words. */
export function remedyOf(check: CheckView, nowMs: number): Remedy {
  if (!check.remedy) return { look: 'none', text: 'no remedy' };
  if (check.running?.kind === 'remedy') return { look: 'busy', text: 'remedy is running' };
  const pause = check.pauses?.find((pause) => pause.subject === 'remedies' && Date.parse(pause.until) > nowMs);
  if (pause) return { look: 'bad', text: `remedies are paused until ${clockTime(Date.parse(pause.until), nowMs)}` };
  const budget = check.remedyBudget;
  const resetsMs = budget?.resetsAt ? Date.parse(budget.resetsAt) : undefined;
  if (budget?.left === 0 && (resetsMs === undefined || resetsMs > nowMs)) {
    const again = resetsMs === undefined ? 'a success brings new ones' : `again from ${clockTime(resetsMs, nowMs)}`;
    return { look: 'bad', text: `remedy has used its ${budget.limit} runs; ${again}` };
  }
  const isAnswer = (check.remedy.startedAt ?? '') >= (check.check.startedAt ?? '~');
  if (isAnswer && check.remedyStatus === 'Failed') return { look: 'bad', text: 'remedy failed' };
  if (isAnswer && check.remedyStatus === 'Succeeded') return { look: 'done', text: 'remedy succeeded, not checked since' };
  if (check.running?.kind === 'healthCheck') return { look: 'busy', text: 'check is running' };
  return { look: 'none', text: budget ? `remedy has ${budget.left} of ${budget.limit} runs left` : 'remedy has not run since' };
}
