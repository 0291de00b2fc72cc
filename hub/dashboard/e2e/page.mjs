// What tests do with the dashboard in a real browser, against the mock hub and against a real one.

import { chromium } from 'playwright-core';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function launch() {
  return chromium.launch({ executablePath: CHROMIUM, headless: true, args: FLAGS });
}

/** A dashboard in a tab. `errors` collects what the console and the page's security policy complain of. */
export class Dashboard {
  errors = [];

  constructor(page, base) {
    this.page = page;
    this.base = base;
    page.on('pageerror', (error) => this.errors.push(String(error)));
    page.on('console', (message) => {
      // Refused and broken connections are what tests cause on purpose.
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) {
        this.errors.push(message.text());
      }
    });
  }

  /** `context` takes the options of a playwright context: viewport, colorScheme. */
  static async open(browser, base, context = {}) {
    const tab = await browser.newContext({ ignoreHTTPSErrors: true, ...context });
    return new Dashboard(await tab.newPage(), base.replace(/\/$/, ''));
  }

  async login(token) {
    await this.page.goto(`${this.base}/`);
    await this.page.fill('input[name=token]', token);
    await this.page.click('button:has-text("Sign in")');
  }

  /** Waits until the page says that its data is live. */
  async live(timeout = 30_000) {
    await this.page.locator('[data-live=yes]').waitFor({ timeout });
  }

  /** Waits for something outside of the page. */
  async until(condition, timeout = 5000) {
    const end = Date.now() + timeout;
    while (!condition()) {
      if (Date.now() > end) throw new Error(`not within ${timeout} ms: ${condition}`);
      await this.page.waitForTimeout(20);
    }
  }

  /** Follows the navigation, so that the document stays the same. */
  async go(text) {
    await this.page.click(`nav.top >> text=${text}`);
  }

  /** The grid's cell of a check, with a status when one is given. */
  cell(cluster, namespace, check, status) {
    const asked = { cluster, namespace, check, status };
    const attributes = Object.entries(asked).filter(([, value]) => value !== undefined);
    return this.page.locator(`td${attributes.map(([key, value]) => `[data-${key}="${value}"]`).join('')}`);
  }

  /** Puts a mark into the document that a reload would lose. */
  async mark() {
    await this.page.evaluate(() => (window.stillTheSameDocument = true));
  }

  async isMarked() {
    return this.page.evaluate(() => window.stillTheSameDocument === true);
  }
}
