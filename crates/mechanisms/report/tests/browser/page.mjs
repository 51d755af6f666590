// Opens a page of a report in Chromium and checks how it works: node page.mjs PAGE
//
// POSTERN_BROWSER is the path of Chromium. With POSTERN_SCREENSHOTS set to a folder, pictures of the page go there.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { load } from "./modules.mjs";

const { chromium } = load("playwright-core");
const axe = readFileSync(load.resolve("axe-core/axe.min.js"), "utf8");
const file = resolve(process.argv[2]);
const url = pathToFileURL(file).href;
const name = basename(file, ".html");

// Chromium's sandbox needs user namespaces, which many containers have not.
const browser = await chromium.launch({ executablePath: process.env.POSTERN_BROWSER, args: ["--no-sandbox"] });

/** Opens the page; fails at its end if it said anything on the console or asked for anything but itself. */
async function withPage(options, check) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => wrong.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => wrong.push(`dialog: ${dialog.message()}`));
  page.on("request", (request) => {
    if (request.url() !== url) wrong.push(`request: ${request.url()}`);
  });
  await page.goto(url, { waitUntil: "load" });
  await check(page);
  assert.deepEqual(wrong, []);
  await context.close();
}

const rows = (page) => page.locator("#table tbody tr");
const shown = (page) => page.locator("#table tbody tr:visible");
const column = (page, index) =>
  page.$$eval("#table tbody tr", (all, at) => all.map((row) => row.cells[at].dataset.key ?? row.cells[at].textContent), index);

async function checkSorting(page) {
  const headers = page.locator("#table thead th");
  const count = await headers.count();
  const collator = new Intl.Collator("en", { numeric: true });
  for (let index = 0; index < count; index += 1) {
    const header = headers.nth(index);
    const button = header.getByRole("button");
    const sorted = async (direction) => {
      assert.equal(await header.getAttribute("aria-sort"), direction);
      assert.equal(await page.locator("#table th[aria-sort]").count(), 1, "one column is the sorted one");
      const keys = await column(page, index);
      const order = direction === "ascending" ? 1 : -1;
      for (let at = 1; at < keys.length; at += 1) {
        assert.ok(order * collator.compare(keys[at - 1], keys[at]) <= 0, `column ${index} is ${direction}: row ${at}`);
      }
    };
    await button.click();
    await sorted("ascending");
    await button.click();
    await sorted("descending");
    await button.focus();
    await page.keyboard.press("Enter");
    await sorted("ascending");
    await page.keyboard.press("Space");
    await sorted("descending");
  }
}

async function checkFilters(page) {
  const all = await rows(page).count();
  const status = page.locator("#status");
  const clear = page.getByRole("button", { name: "Clear filters" });
  assert.equal(await shown(page).count(), all);
  assert.equal(await clear.isVisible(), false);

  // By text: the rule of the last row is found, and what is nowhere is not.
  const rule = (await rows(page).last().getAttribute("data-rule")).trim();
  await page.fill("#text", "no row holds this text");
  assert.equal(await shown(page).count(), 0);
  assert.match(await status.textContent(), /^0 of /);
  await page.fill("#text", rule.slice(0, 20));
  assert.ok((await shown(page).count()) > 0);
  await clear.click();
  await page.waitForFunction((count) => document.querySelectorAll("#table tbody tr:not([hidden])").length === count, all);

  // By severity, with the keyboard: without one, its rows are gone and the others are there.
  for (const box of await page.locator("[name=severity]").all()) {
    const severity = await box.getAttribute("value");
    await box.focus();
    await page.keyboard.press("Space");
    const left = await shown(page).evaluateAll((found) => found.map((row) => row.dataset.severity));
    assert.ok(!left.includes(severity));
    const others = await rows(page).evaluateAll((found, not) => found.filter((row) => row.dataset.severity !== not).length, severity);
    assert.equal(left.length, others);
    await page.keyboard.press("Space");
  }

  // By rule and by namespace.
  for (const id of ["rule", "namespace"]) {
    const select = page.locator(`#${id}`);
    if ((await select.count()) === 0) continue;
    const value = await select.locator("option").last().getAttribute("value");
    await select.selectOption({ index: (await select.locator("option").count()) - 1 });
    const left = await shown(page).evaluateAll((found, key) => found.map((row) => row.dataset[key]), id);
    assert.ok(left.length > 0 && left.every((found) => found === value), `${id} ${value}`);
    await select.selectOption({ index: 0 });
  }
  assert.equal(await shown(page).count(), all);
}

async function checkPrint(page) {
  const all = await rows(page).count();
  if (all > 0) await page.fill("#text", "no row holds this text");
  await page.emulateMedia({ media: "print" });
  assert.equal(await shown(page).count(), all, "all rows are printed");
  assert.equal(await page.locator("button:visible:not(th button), input:visible, select:visible").count(), 0);
  const evidence = page.locator("#table pre");
  assert.equal(await page.locator("#table pre:visible").count(), await evidence.count(), "all evidence is printed");
  await page.emulateMedia({ media: "screen" });
  if (all > 0) await page.fill("#text", "");
}

async function checkTheme(page) {
  const background = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const button = page.getByRole("button", { name: "Dark theme" });
  const before = await background();
  const pressed = await button.getAttribute("aria-pressed");
  await button.click();
  assert.notEqual(await background(), before);
  assert.notEqual(await button.getAttribute("aria-pressed"), pressed);
  await button.click();
  assert.equal(await background(), before);
}

async function checkAccessibility(page, where) {
  // The page's policy lets no script in from outside; the debugger's own evaluation is not a part of the page.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const bad = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const told = bad.map(({ id, nodes }) => `${where}: ${id}: ${nodes.map((node) => node.html.slice(0, 160)).join("\n  ")}`);
  assert.deepEqual(told, []);
}

async function picture(page, kind) {
  const folder = process.env.POSTERN_SCREENSHOTS;
  if (folder) await page.screenshot({ path: join(folder, `${name}-${kind}.png`), fullPage: kind.endsWith("whole") });
}

// The same page is not judged 2000 rows long: axe takes minutes, and finds in each row what it found in the first.
const small = name !== "large";

try {
  let count = 0;
  await withPage({ colorScheme: "light" }, async (page) => {
    count = await rows(page).count();
    await picture(page, "light");
    await picture(page, "light-whole");
    if (count > 0) {
      await checkFilters(page);
      await checkSorting(page);
    }
    await checkTheme(page);
    await checkPrint(page);
    assert.equal(await page.evaluate(() => window.hacked), undefined, "no text of a finding runs");
  });
  for (const colorScheme of small ? ["light", "dark"] : []) {
    await withPage({ colorScheme }, async (page) => {
      await page.evaluate(() => document.querySelectorAll("details").forEach((details) => (details.open = true)));
      await checkAccessibility(page, colorScheme);
    });
  }
  await withPage({ colorScheme: "dark" }, async (page) => {
    await picture(page, "dark");
    await picture(page, "dark-whole");
  });
  await withPage({ viewport: { width: 400, height: 800 } }, async (page) => {
    const [width, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(width <= room, `the page is ${width} wide where there is room for ${room}`);
    await picture(page, "narrow");
  });
  await withPage({ javaScriptEnabled: false }, async (page) => {
    assert.equal(await shown(page).count(), count, "all rows are there without JavaScript");
    assert.equal(await page.locator("button:visible, input:visible, select:visible").count(), 0);
    await picture(page, "noscript");
  });
} catch (error) {
  console.error(`${file}:`);
  throw error;
} finally {
  await browser.close();
}
