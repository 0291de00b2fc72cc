// Takes the pictures of the documentation, after `npm run build`: `node mock/screenshots.mjs ../../docs/images`.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { Dashboard, launch } from '../e2e/page.mjs';
import { incident, MockHub, OPERATOR_TOKEN, trouble } from './server.mjs';

const folder = process.argv[2];
if (!folder) {
  console.error('usage: screenshots.mjs FOLDER');
  process.exit(2);
}

const WIDE = { width: 1400, height: 860 };
const PHONE = { width: 390, height: 844 };
/** Name, address, and what is there when the page is complete. */
const PAGES = [
  ['wrong', '/', '[data-actions]'],
  ['grid', '/grid', 'td[data-status=Failed]'],
  ['check', '/clusters/prod-eu-west-1/checks/kube-system/coredns-resolve', '.strip .s-Failed'],
  ['cluster', '/clusters/prod-us-east-1', '.item'],
  ['fleet-check', '/checks/payments/ledger-consistency', '.strip .s-Failed'],
  ['run', '/clusters/prod-eu-west-1/checks/kube-system/coredns-resolve/runs/99999', '.log'],
  ['changes', '/changes', '.timeline .did'],
  ['windows', '/windows', '.window'],
  ['definitions', '/definitions', '.definition'],
];

const browser = await launch();

async function withHub(options, work) {
  const hub = new MockHub(options);
  try {
    await work(hub, await hub.listen());
  } finally {
    await hub.close();
  }
}

async function signedIn(base, viewport, colorScheme = 'dark') {
  const dashboard = await Dashboard.open(browser, base, { viewport, colorScheme });
  await dashboard.login(OPERATOR_TOKEN);
  await dashboard.live();
  return dashboard;
}

const take = ({ page }, name) => page.screenshot({ path: join(folder, `${name}.png`) });

async function takePages(base, viewport, suffix) {
  const dashboard = await signedIn(base, viewport);
  const { page } = dashboard;
  for (const [name, path, sign] of PAGES) {
    await page.goto(base + path);
    await page.locator(sign).first().waitFor();
    // The times of the last successes come one after the other.
    await page.waitForFunction(() =>
      [...document.querySelectorAll('.item:not(.incident) > .s-Failed + .what + .since')].every((since) => since.innerText.includes('success')),
    );
    await take(dashboard, name + suffix);
  }
}

await mkdir(folder, { recursive: true });
await withHub({}, async (hub, base) => {
  trouble(hub);
  hub.setIncidents([incident(hub)]);
  await takePages(base, WIDE, '');
  await takePages(base, PHONE, '-phone');
  const login = await Dashboard.open(browser, base, { viewport: PHONE, colorScheme: 'dark' });
  await login.page.goto(base);
  await login.page.locator('input[name=token]').waitFor();
  await take(login, 'login-phone');
  const light = await signedIn(base, WIDE, 'light');
  await light.go('Grid');
  await light.page.fill('.filter input', 'payments');
  await light.page.waitForFunction(() => document.querySelectorAll('td[data-check]').length === 30);
  await take(light, 'grid-filtered-light');
  await light.page.fill('.filter input', '');
  await light.go('Wrong now');
  hub.goAway();
  await light.page.locator('[data-cut=yes]').waitFor();
  await take(light, 'cut-off-light');
});
await withHub({ clusters: 100 }, async (hub, base) => {
  trouble(hub);
  for (const site of [69, 74, 75, 88]) hub.setCheck(`edge-site-${site}`, 'registry', 'image-pull', 'Failed');
  hub.setCheck('edge-site-81', 'payments', 'queue-depth', 'Overdue');
  hub.setCluster('edge-site-79', { status: 'Unreachable', message: 'silent for longer than the lease of 15 s' });
  const dashboard = await signedIn(base, WIDE);
  await dashboard.go('Grid');
  await dashboard.cell('edge-site-100', 'security', 'vault-seal').waitFor();
  await dashboard.page.locator('.grid').evaluate((grid) => grid.scrollTo(2400, 1400));
  await take(dashboard, 'grid-10000');
});
await withHub({}, async (_, base) => {
  const dashboard = await signedIn(base, { width: 1400, height: 300 });
  await dashboard.page.locator('[data-headline=good]').waitFor();
  await take(dashboard, 'all-well');
});
await browser.close();
