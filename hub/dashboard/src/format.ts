// Times, durations and numbers as people read them.

/** `8 s`, `3 min`, `2 h 5 min`, `3 d 4 h`. Never negative. */
export function duration(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

/** How long a run took, with tenths where they matter. */
export function took(startedAt: string, finishedAt: string): string {
  const milliseconds = Date.parse(finishedAt) - Date.parse(startedAt);
  return milliseconds < 10_000 ? `${(Math.max(0, milliseconds) / 1000).toFixed(1)} s` : duration(milliseconds);
}

/** `3 min ago` or `in 40 s`. */
export function relative(timeMs: number, nowMs: number): string {
  return timeMs > nowMs ? `in ${duration(timeMs - nowMs)}` : `${duration(nowMs - timeMs)} ago`;
}

/** Local date and time, to the second; the date only where it is not today's. */
export function clockTime(timeMs: number, nowMs: number): string {
  const time = new Date(timeMs);
  const two = (n: number) => String(n).padStart(2, '0');
  const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  const hour = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return time.toDateString() === new Date(nowMs).toDateString() ? hour : `${day} ${hour}`;
}

/** `99.95 %`. Cut, not rounded: only what was never down is 100 %. */
export function percent(ratio: number): string {
  return `${(Math.floor(ratio * 10_000 + 1e-6) / 100).toLocaleString('en', { minimumFractionDigits: 2 })} %`;
}

/** `1 check`, `3 checks`. */
export function count(n: number, noun: string): string {
  return `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`;
}
