// The dashboard in a real browser against the mock hub. Needs `npm run build` and Chromium.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';
import { after, afterEach, before, beforeEach, test } from 'node:test';

import { incident, MockHub, OPERATOR_TOKEN, TOKEN, trouble } from '../mock/server.mjs';
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

test('a check shows its uptime, and that it flaps', async () => {
  const { page } = dashboard;
  hub.check(CLUSTER, NAMESPACE, CHECK).health = { recent: 'SFSFSFS', soft: false, flapping: true, changePercent: 33.9 };
  await dashboard.login(TOKEN);
  await dashboard.live();
  await page.goto(`${base}/clusters/${CLUSTER}/checks/${NAMESPACE}/${CHECK}`);
  await page.getByText('flapping', { exact: true }).waitFor();
  await page.getByText('change too often (34 %)').waitFor();
  await page.getByText('99.93 %').first().waitFor();
});

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

test('where there is an OpenID provider people are sent there, and told why they come back as nobody', async () => {
  const { page } = dashboard;
  hub.issuer = 'https://login.example.com/realms/ops';
  await page.goto(`${base}/?login=no-role`);
  await page.getByText('You are in no group that may see this hub.').waitFor();
  const button = page.getByRole('link', { name: 'Sign in with login.example.com' });
  assert.equal(await button.getAttribute('href'), '/api/v1/oidc/login');
  // The login leads back to the first page, and from there to the one that was asked for.
  await page.goto(`${base}/clusters/${CLUSTER}`);
  await page.route('**/api/v1/oidc/login', (route) => route.fulfill({ status: 303, headers: { location: '/' } }));
  await button.click();
  await page.waitForURL(`${base}/clusters/${CLUSTER}`);
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
  await page.locator('.item > .s-Failed').first().waitFor();
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
  // On the list's last page.
  await dashboard.cell('staging-eu-west-1', 'storage', 'wal-archive', 'Succeeded').waitFor();
  await dashboard.cell('edge-site-100', 'security', 'vault-seal', 'Succeeded').waitFor();
  hub.setCheck('edge-site-100', 'security', 'vault-seal', 'Failed');
  await dashboard.cell('edge-site-100', 'security', 'vault-seal', 'Failed').waitFor(SOON);
});

test('an incident stands first and its checks are not shown again', async () => {
  const { page } = dashboard;
  trouble(hub);
  await dashboard.login(TOKEN);
  await page.locator('.wrong', { hasText: 'ledger-consistency' }).waitFor();
  assert.equal(await page.locator('.incident').count(), 0, 'a hub without incidents shows the checks');
  await page.reload();
  hub.setIncidents([incident(hub)]);
  await page.reload();
  const shown = page.locator('[data-incident]');
  await shown.getByText('payments/ledger-consistency fails in 2 of 2 clusters').waitFor();
  await shown.getByText('definition.put base-coredns-resolve').waitFor();
  await shown.getByText('agentVersion=0.1.0: 1 of 1 fail').waitFor();
  assert.equal(await page.locator('section.wrong', { hasText: 'ledger-consistency' }).count(), 0);
  assert.equal(await page.locator('main section h2').first().innerText(), 'Incidents 1');
  hub.setIncidents([]);
  await page.locator('section.wrong', { hasText: 'ledger-consistency' }).waitFor(SOON);
});

test('what somebody knows of is apart, is not counted, and is not green', async () => {
  const { page } = dashboard;
  await dashboard.login(TOKEN);
  await headline('good').waitFor();
  hub.check(CLUSTER, NAMESPACE, CHECK).care = { maintenance: 'night' };
  hub.setCheck(CLUSTER, NAMESPACE, CHECK, 'Failed');
  await headline('known').waitFor(SOON);
  await page.locator('section.known', { hasText: 'maintenance: night' }).waitFor();
  assert.equal(await page.locator('section.wrong').count(), 0);
  assert.match(await page.title(), /^\(1\) known/);
});

test('only who may act has buttons, and sees which layer refused', async () => {
  const { page } = dashboard;
  hub.setCheck(CLUSTER, NAMESPACE, CHECK, 'Failed');
  await dashboard.login(TOKEN);
  await page.locator('section.wrong').waitFor();
  assert.equal(await page.locator('[data-actions]').count(), 0, 'a viewer may not');
  await page.click('text=Sign out');
  await page.locator('input[name=token]').waitFor();
  await dashboard.login(OPERATOR_TOKEN);
  const actions = page.locator('section.wrong [data-actions]').first();
  hub.answer = { outcome: 'Refused', layer: 'policy', message: 'this cluster obeys no run' };
  await actions.getByText('Run now').click();
  await actions.locator('[data-outcome=Refused]', { hasText: 'Refused by policy' }).waitFor();
  await actions.getByText('this cluster obeys no run').waitFor();
  await actions.getByText('Pause', { exact: true }).click();
  await actions.locator('input').fill('new resolver');
  await page.keyboard.press('Enter');
  await actions.locator('[data-outcome]').waitFor();
  const scope = { clusters: [CLUSTER], namespace: NAMESPACE, check: CHECK };
  const commands = () => hub.asked.filter(({ path }) => path === 'commands').map(({ body }) => body);
  await dashboard.until(() => commands().length === 2);
  const pause = { action: 'pause', subject: 'checks', seconds: 3600, reason: 'new resolver', ...scope };
  assert.deepEqual(commands(), [{ action: 'run', ...scope }, pause]);
  await actions.getByText('Acknowledge').click();
  await actions.locator('input').fill('ticket 7');
  await page.keyboard.press('Enter');
  await page.locator('section.known', { hasText: 'acknowledged by ann' }).getByText('“ticket 7”').waitFor(SOON);
  await page.locator('section.known').getByText('Take back').click();
  await page.locator('section.wrong', { hasText: CHECK }).waitFor(SOON);
});

test('a check is shown in every cluster, with its runs, its definition and a conflict', async () => {
  const { page } = dashboard;
  trouble(hub);
  await dashboard.login(TOKEN);
  await dashboard.live();
  await dashboard.go('Grid');
  await page.click(`th:has-text("${CHECK}") a`);
  await page.waitForURL(/\/checks\/kube-system\/coredns-resolve$/);
  const row = (cluster) => page.locator(`tr[data-cluster="${cluster}"]`);
  await row(CLUSTER).locator('.strip .s-Failed').first().waitFor();
  assert.equal(await row(CLUSTER).locator('.strip rect').count(), 30);
  await row('prod-us-east-1').locator('.s-Conflict').waitFor();
  await row(CLUSTER).getByText('generation 4').waitFor();
  assert.equal(await page.locator('tbody tr').first().getAttribute('data-status'), 'Failed', 'worst first');
  assert.match(await page.locator('h1').innerText(), /on 3 clusters/);
  hub.setCheck('prod-us-east-1', NAMESPACE, CHECK, 'Failed', { message: 'no answer' });
  await row('prod-us-east-1').getByText('no answer').waitFor(SOON);
});

test('a run has its times, its log, its remedy and the line to copy', async () => {
  const { page } = dashboard;
  trouble(hub);
  await dashboard.login(TOKEN);
  await dashboard.live();
  await page.goto(`${base}/clusters/${CLUSTER}/checks/${NAMESPACE}/${CHECK}`);
  await page.locator('.rows tr', { hasNot: page.locator('text=remedy') }).locator('.time a').first().click();
  await page.waitForURL(/\/runs\/\d+$/);
  for (const step of ['slot', 'started', 'ended', 'at the hub', 'remedy']) {
    await page.locator('.steps li', { hasText: step }).first().waitFor();
  }
  await page.locator('pre.log', { hasText: 'exit 1' }).waitFor();
  await page.getByText(/kubectl -n kube-system get workflow coredns-resolve-\w+ -o yaml/).waitFor();
  await page.getByText('show it').click();
  await page.locator('pre.log', { hasText: 'kind: Workflow' }).waitFor();
  await page.locator('.steps a', { hasText: 'Succeeded' }).click();
  await page.locator('h1 + .pill + .tag', { hasText: 'remedy' }).waitFor();
  await page.locator('.steps li', { hasText: 'remedy of' }).locator('a').waitFor();
  await page.goto(`${base}/clusters/${CLUSTER}/checks/${NAMESPACE}/${CHECK}/runs/1`);
  await page.getByText('The history has no such run').waitFor();
});

test('what was done stands beside what became of the checks, and a failure comes without a reload', async () => {
  const { page } = dashboard;
  await dashboard.login(TOKEN);
  await dashboard.live();
  await dashboard.mark();
  await dashboard.go('What changed');
  await page.locator('.did', { hasText: 'definition written' }).getByText('by ci-main').waitFor();
  await page.locator('.did', { hasText: '2 × answer' }).waitFor();
  await page.locator('.became', { hasText: 'gc-last-run' }).first().waitFor();
  for (const cluster of [CLUSTER, 'prod-us-east-1']) hub.setCheck(cluster, NAMESPACE, CHECK, 'Failed');
  const failed = page.locator('.became[data-status=Failed]').first();
  await failed.getByText('kube-system/coredns-resolve on 2 clusters').waitFor(SOON);
  await page.fill('.filter input', 'ben');
  await page.waitForFunction(() => document.querySelectorAll('.timeline > li').length === 2);
  assert.ok(await dashboard.isMarked());
});

test('windows say when they open next and who wrote them', async () => {
  const { page } = dashboard;
  await dashboard.login(TOKEN);
  await dashboard.live();
  await page.keyboard.press('4');
  await page.waitForURL(/\/windows$/);
  const window = (name) => page.locator(`[data-window="${name}"]`);
  await window('patch-sunday').getByText(/begins in 2 d/).waitFor();
  await window('patch-sunday').getByText(/by ann/).waitFor();
  await window('ingress-upgrade').getByText(/ends in 1 h/).waitFor();
  await window('move-lyon').getByText('it never opens again').waitFor();
});

test('a cluster shows its link, its certificate, its pauses and what its policy refused', async () => {
  const { page } = dashboard;
  trouble(hub);
  hub.check('prod-us-east-1', NAMESPACE, CHECK).pauses = [
    { id: 'p', subject: 'remedies', until: new Date(Date.now() + 3_600_000).toISOString(), reason: 'network work', by: 'ann' },
  ];
  await dashboard.login(TOKEN);
  await dashboard.live();
  await page.goto(`${base}/clusters/prod-us-east-1`);
  for (const text of ['12 reports wait', '3 s behind', 'most others have 0.1.0', /ends in 16 h/, 'network work']) {
    await page.getByText(text).first().waitFor();
  }
  const policy = page.locator('.policy');
  await policy.getByText('get,list leases of coordination.k8s.io').waitFor();
  await page.locator('.item', { hasText: 'base-coredns-resolve' }).locator('.s-Conflict').waitFor();
  await page.locator('.item', { hasText: 'the whole cluster' }).getByText(/by ann, ends/).waitFor();

  // An agent may say anything: twice the same name, markup, and no end of it.
  const long = 'x'.repeat(1000);
  const hostile = [
    { name: 'namespaces', value: '<img src=x onerror=alert(1)>' },
    { name: 'namespaces', value: long },
  ];
  hub.setCluster('prod-us-east-1', { policy: hostile });
  await policy.getByText('<img src=x onerror=alert(1)>').waitFor();
  await page.setViewportSize({ width: 360, height: 740 });
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), 'wider than a phone');
  // An older agent says nothing of it.
  hub.setCluster('prod-us-east-1', { policy: undefined });
  await page.getByText('The agent does not say what the hub may push here').waitFor();
  assert.equal(await policy.count(), 0);
});

test('nothing is wider than a phone', async () => {
  const { page } = dashboard;
  trouble(hub);
  hub.setIncidents([incident(hub)]);
  await page.setViewportSize({ width: 360, height: 740 });
  await dashboard.login(OPERATOR_TOKEN);
  await dashboard.live();
  const check = `/clusters/${CLUSTER}/checks/${NAMESPACE}/${CHECK}`;
  for (const [path, sign] of [
    ['/', '[data-incident]'],
    ['/changes', '.timeline li'],
    ['/windows', '.window'],
    ['/definitions', '.definition'],
    ['/clusters/prod-us-east-1', '.item'],
    [`/checks/${NAMESPACE}/${CHECK}`, '.strip'],
    [check, '.strip'],
    [`${check}/runs/99999`, 'pre.log'],
  ]) {
    await page.goto(base + path);
    await page.locator(sign).first().waitFor();
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 360, `${path} is ${wide} wide`);
  }
});

test('what is written in Git says where', async () => {
  const { page } = dashboard;
  await dashboard.login(TOKEN);
  await dashboard.live();
  for (const [path, item, words] of [
    ['/definitions', '.definition', /in Git: checks\/.*\.yaml at 5e574a31c0ff/],
    ['/windows', '.window[data-window=patch-sunday]', /in Git: windows\/patch-sunday\.yaml at 5e574a31c0ff/],
  ]) {
    await page.goto(base + path);
    await page.locator(`${item} .origin`).waitFor();
    assert.match((await page.locator(`${item} .origin`).innerText()).replace(/\s+/g, ' '), words);
    assert.equal(await page.locator('.origin').count(), 1, 'what people made says nothing of Git');
  }
});

test('live.mjs sees a failure', async () => {
  const script = fileURLToPath(new URL('live.mjs', import.meta.url));
  const child = spawn(process.execPath, [script, base, OPERATOR_TOKEN, CLUSTER, NAMESPACE, CHECK, '--timeout', '30'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  assert.equal((await lines.next()).value, 'READY');
  const changedAt = Date.now();
  hub.setCheck(CLUSTER, NAMESPACE, CHECK, 'Failed');
  const [, seen] = (await lines.next()).value.match(/^FAILED_SEEN (\d+)$/);
  assert.ok(Number(seen) - changedAt < 2000);
  assert.equal((await lines.next()).value, 'PAGES_SEEN');
  assert.equal((await once(child, 'exit'))[0], 0);
});
