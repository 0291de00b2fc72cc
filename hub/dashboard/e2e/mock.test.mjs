// The dashboard in a real browser against the mock hub. Needs `npm run build` and Chromium.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';
import { after, afterEach, before, beforeEach, test } from 'node:test';

import { MockHub, TOKEN, trouble } from '../mock/server.mjs';
import { Dashboard, launch } from './page.mjs';

const [CLUSTER, NAMESPACE, CHECK] = ['prod-eu-west-1', 'kube-system', 'coredns-resolve'];
/** A change must be on screen this fast. */
const SOON = { timeout: 2000 };

let browser;
let hub;
let base;
let dashboard;

before(async () => (browser = await launch()));
after(() => browser.close());

beforeEach(async () => {
  hub = new MockHub({ clusters: 3, checks: 100 });
  base = await hub.listen();
  dashboard = await Dashboard.open(browser, base, { viewport: { width: 1400, height: 900 } });
});

afterEach(async () => {
  await dashboard.page.context().close();
  await hub.close();
  assert.deepEqual(dashboard.errors, []);
});

const headline = (look) => dashboard.page.locator(`[data-headline=${look}]`);

test('a wrong token is refused, the right one opens the fleet, signing out closes it', async () => {
  const { page } = dashboard;
  await dashboard.login('amf_wrong');
  await page.getByText('The hub does not know this token.').waitFor();
  await page.fill('input[name=token]', TOKEN);
  await page.click('button:has-text("Sign in")');
  await dashboard.live();
  await headline('good').waitFor();
  assert.match(await headline('good').innerText(), /300 of 300 checks healthy on 3 clusters/);
  await page.click('text=Sign out');
  await page.locator('input[name=token]').waitFor();
  assert.equal(await page.getByText('prod-eu').count(), 0);
});

test('a failure is on screen within two seconds, without a reload', async () => {
  const { page } = dashboard;
  await dashboard.login(TOKEN);
  await dashboard.live();
  await dashboard.go('Grid');
  await dashboard.cell(CLUSTER, NAMESPACE, CHECK, 'Succeeded').waitFor();
  await dashboard.mark();
  hub.setCheck(CLUSTER, NAMESPACE, CHECK, 'Failed', { message: 'i/o timeout' });
  await dashboard.cell(CLUSTER, NAMESPACE, CHECK, 'Failed').waitFor(SOON);
  assert.match(await dashboard.cell(CLUSTER, NAMESPACE, CHECK).innerText(), /✕\s*fail/);
  assert.match(await page.title(), /^\(1\) wrong/);
  await dashboard.go('Wrong now');
  await headline('bad').waitFor();
  await page.getByText('i/o timeout').waitFor();
  hub.setCheck(CLUSTER, NAMESPACE, CHECK, 'Succeeded');
  await headline('good').waitFor(SOON);
  assert.ok(await dashboard.isMarked());
});

test('a page that is cut off says so, is not green, and comes back by itself', async () => {
  const { page } = dashboard;
  await dashboard.login(TOKEN);
  await headline('good').waitFor();
  await dashboard.mark();
  hub.goAway();
  await page.locator('[data-cut=yes]').waitFor(SOON);
  assert.match(await page.locator('[data-cut=yes]').innerText(), /No live data since \d\d:\d\d:\d\d/);
  await headline('cut').waitFor();
  assert.equal(await page.locator('[data-live=yes]').count(), 0);
  assert.match(await page.title(), /^\(\?\)/);
  hub.setCheck(CLUSTER, NAMESPACE, CHECK, 'Failed');
  hub.comeBack();
  await headline('bad').waitFor({ timeout: 30_000 });
  await dashboard.live();
  assert.equal(await page.locator('[data-cut=yes]').count(), 0);
  assert.ok(await dashboard.isMarked());
});

test('a hub that hangs is noticed, though its connections stay open', async () => {
  const { page } = dashboard;
  await page.clock.install();
  await dashboard.login(TOKEN);
  await headline('good').waitFor();
  hub.frozen = true;
  await page.clock.fastForward(26_000);
  await page.locator('[data-cut=yes]').waitFor(SOON);
  await headline('cut').waitFor();
  hub.frozen = false;
});

test('a stream that is open and yet silent is noticed by the counts', async () => {
  const { page } = dashboard;
  await page.clock.install();
  await dashboard.login(TOKEN);
  await headline('good').waitFor();
  const poll = async () => {
    const answered = page.waitForResponse((response) => response.url().endsWith('/api/v1/clusters'));
    await page.clock.fastForward(10_000);
    await (await answered).finished();
  };
  await poll();
  hub.mute = true;
  hub.setCheck(CLUSTER, NAMESPACE, CHECK, 'Failed');
  await poll();
  hub.mute = false;
  await poll();
  await page.clock.fastForward(1000);
  await headline('bad').waitFor(SOON);
});

test('unknown is apart from wrong and is never green', async () => {
  const { page } = dashboard;
  await dashboard.login(TOKEN);
  await headline('good').waitFor();
  hub.setCluster('edge-berlin-3', { status: 'Unreachable', message: 'silent for longer than the lease' });
  await page.locator('section.unknown').getByText('100 checks').waitFor(SOON);
  assert.match(await page.title(), /^\(1\) wrong/, 'a lost cluster and its stale checks are one thing');
  hub.setCluster('edge-berlin-3', { status: 'Connected', message: '' });
  await headline('bad').waitFor(SOON);
});

test('every page works, also by its address and by the keyboard', async () => {
  const { page } = dashboard;
  trouble(hub);
  await dashboard.login(TOKEN);
  await dashboard.live();
  await page.goto(`${base}/clusters/${CLUSTER}/checks/${NAMESPACE}/${CHECK}`);
  await page.getByText('Resolves internal and external names').waitFor();
  await page.locator('svg.strip .s-Failed').first().waitFor();
  const newest = await page.locator('.rows tbody tr').first().innerText();
  await page.click('button:has-text("Older")');
  await page.waitForFunction((text) => document.querySelector('.rows tbody tr')?.innerText !== text, newest);
  await page.click('button:has-text("Newer")');
  await page.waitForFunction((text) => document.querySelector('.rows tbody tr')?.innerText === text, newest);
  await page.click(`h1 a:has-text("${CLUSTER}")`);
  await page.locator('.item').first().locator('.s-Failed').waitFor();
  await dashboard.go('Definitions');
  await page.locator('[data-definition=base-coredns-resolve] .s-Conflict').first().waitFor();
  await dashboard.go('Grid');
  await page.keyboard.press('/');
  await page.keyboard.type('environment=edge ledger');
  await page.waitForFunction(() => document.querySelectorAll('td[data-check]').length === 1);
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => document.querySelectorAll('td[data-check]').length === 300);
  await page.locator('td a[tabindex="0"]').focus();
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  await page.waitForURL(/\/clusters\/prod-eu-west-1\/checks\//);
});

test('a hundred clusters with a hundred checks stay usable', async () => {
  await hub.close();
  hub = new MockHub({ clusters: 100, checks: 100 });
  dashboard.base = await hub.listen();
  await dashboard.login(TOKEN);
  await dashboard.live();
  await dashboard.go('Grid');
  await dashboard.cell('edge-site-100', 'security', 'vault-seal', 'Succeeded').waitFor();
  hub.setCheck('edge-site-100', 'security', 'vault-seal', 'Failed');
  await dashboard.cell('edge-site-100', 'security', 'vault-seal', 'Failed').waitFor(SOON);
});

test('live.mjs sees a failure', async () => {
  const script = fileURLToPath(new URL('live.mjs', import.meta.url));
  const child = spawn(process.execPath, [script, base, TOKEN, CLUSTER, NAMESPACE, CHECK, '--timeout', '30'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  assert.equal((await lines.next()).value, 'READY');
  const changedAt = Date.now();
  hub.setCheck(CLUSTER, NAMESPACE, CHECK, 'Failed');
  const [, seen] = (await lines.next()).value.match(/^FAILED_SEEN (\d+)$/);
  assert.ok(Number(seen) - changedAt < 2000);
  assert.equal((await once(child, 'exit'))[0], 0);
});
