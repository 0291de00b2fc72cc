// Watches one check in the dashboard of a running hub:
//   node e2e/live.mjs BASE_URL TOKEN CLUSTER NAMESPACE CHECK [--timeout SECONDS] [--screenshot PATH]
// Prints READY when its cell says Succeeded, then FAILED_SEEN and the time (Unix milliseconds) when it says Failed, then
// PAGES_SEEN when the other pages say so too, a run was asked for and delivered, and what changed has all of it; all in
// the same document. Exit status 0 only then. The token must be an operator's.

import { parseArgs } from 'node:util';

import { Dashboard, launch } from './page.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { timeout: { type: 'string', default: '600' }, screenshot: { type: 'string' } },
});
const [base, token, cluster, namespace, check] = positionals;
if (!check) {
  console.error('usage: live.mjs BASE_URL TOKEN CLUSTER NAMESPACE CHECK [--timeout SECONDS] [--screenshot PATH]');
  process.exit(2);
}
const timeout = Number(values.timeout) * 1000;

const browser = await launch();
try {
  const dashboard = await Dashboard.open(browser, base, { viewport: { width: 1400, height: 900 } });
  await dashboard.login(token);
  await dashboard.live();
  await dashboard.go('Grid');
  await dashboard.cell(cluster, namespace, check, 'Succeeded').waitFor({ timeout });
  await dashboard.mark();
  console.log('READY');
  await dashboard.cell(cluster, namespace, check, 'Failed').waitFor({ timeout });
  const seen = Date.now();
  console.log(`FAILED_SEEN ${seen}`);
  if (values.screenshot) await dashboard.page.screenshot({ path: values.screenshot });

  const { page } = dashboard;
  await dashboard.go('Wrong now');
  const wrong = page.locator('section.wrong .item', { hasText: `${namespace}/${check}` }).first();
  await wrong.getByText('Run now').click({ timeout });
  await wrong.locator('[data-outcome=Delivered]').waitFor({ timeout });
  await wrong.locator('a.what').click({ timeout });
  await page.click('text=in every cluster');
  const row = page.locator(`tr[data-cluster="${cluster}"][data-status=Failed]`);
  await row.locator('.strip .s-Failed').first().waitFor({ timeout });
  await dashboard.go('What changed');
  await page.locator('.became[data-status=Failed]', { hasText: `${namespace}/${check} on ${cluster}` }).first().waitFor({ timeout });
  await page.locator('.did[data-kind=command]', { hasText: `run` }).first().waitFor({ timeout });
  if (!(await dashboard.isMarked())) throw new Error('the document was loaded again');
  if (dashboard.errors.length > 0) throw new Error(dashboard.errors.join('; '));
  console.log('PAGES_SEEN');
} catch (error) {
  console.error(String(error));
  process.exitCode = 1;
} finally {
  await browser.close();
}
