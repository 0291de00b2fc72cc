// The page's clock: the hub's time, since every age on screen is counted from a time that the hub or an agent gave.

const clock = $state({ nowMs: Date.now() });
let offsetMs = 0;

setInterval(() => (clock.nowMs = Date.now() + offsetMs), 1000);

/** The hub's time in Unix milliseconds; a reader in a template is updated each second. */
export const now = () => clock.nowMs;

/** Learns the hub's clock from the `Date` of an answer, which has whole seconds. */
export function observeDate(date: string | null): void {
  const hub = date === null ? NaN : Date.parse(date);
  if (Number.isNaN(hub)) return;
  const offset = hub + 500 - Date.now();
  // Half a second of rounding and the network's delay are no difference between clocks.
  offsetMs = Math.abs(offset) < 3000 ? 0 : offset;
  clock.nowMs = Date.now() + offsetMs;
}
