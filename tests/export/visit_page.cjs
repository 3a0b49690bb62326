// Visits an exported page in Chromium, as a user does, and reports what it shows.
// usage: node visit_page.cjs CHROMIUM URL IMAGE FOLDER
// Writes screenshots and the class map of IMAGE (int32) to FOLDER, and prints JSON.

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require("playwright-core");

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"];
const FAKE_CAMERA = ["--use-fake-device-for-media-stream"];
const TIMEOUT = 120_000;

async function main([executablePath, url, image, folder]) {
  const options = { executablePath, headless: true, args: [...FLAGS, ...FAKE_CAMERA] };
  const browser = await chromium.launch(options);
  const requests = [];
  const problems = [];

  async function open(permissions) {
    const context = await browser.newContext({
      viewport: { width: 1200, height: 800 }, permissions,
    });
    const page = await context.newPage();
    page.setDefaultTimeout(TIMEOUT);
    page.on("request", (request) => requests.push(request.url()));
    page.on("console", (message) => {
      if (message.type() === "error") problems.push(message.text());
    });
    page.on("pageerror", (error) => problems.push(String(error)));
    await page.goto(url);
    await page.getByText("The model is ready.").waitFor();
    return page;
  }

  const text = (page, id) => page.locator(`#${id}`).innerText();
  const shoot = (page, name) => page.screenshot({ path: path.join(folder, `${name}.png`) });
  const nextResult = (page) => page.evaluate(() => new Promise((resolve) => {
    document.addEventListener("segmented", ({ detail }) => {
      resolve({ ...detail, classes: Array.from(detail.classes) });
    }, { once: true });
  }));

  const page = await open([]);
  const focused = [];
  for (let count = 0; count < 4; count++) {
    await page.keyboard.press("Tab");
    focused.push(await page.evaluate(() => document.activeElement.id));
  }

  const chooser = page.waitForEvent("filechooser");
  await page.locator("#file").focus();
  await page.keyboard.press("Space");
  await chooser;

  await page.locator("#side").selectOption("513");
  const result = nextResult(page);
  await page.locator("#file").setInputFiles(image);
  const { classes, height, width, milliseconds } = await result;
  fs.writeFileSync(path.join(folder, "classes.bin"), Buffer.from(Int32Array.from(classes).buffer));
  const [status, legend] = [await text(page, "status"), await text(page, "legend")];
  await shoot(page, "image");

  await page.evaluate(() => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File(["no image"], "notes.txt", { type: "text/plain" }));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
  });
  await page.locator("#error").waitFor();
  const notAnImage = await text(page, "error");
  await shoot(page, "error");

  await page.locator("#camera").click();
  await page.getByText("denied access").waitFor();
  const refused = await text(page, "error");
  await page.context().close();

  const filming = await open(["camera"]);
  const frame = nextResult(filming);
  const streams = await filming.evaluate(() => {
    const start = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    let started = 0;
    navigator.mediaDevices.getUserMedia = (wanted) => { started += 1; return start(wanted); };
    document.getElementById("camera").click();
    document.getElementById("camera").click();
    return started;
  });
  await frame;
  const { height: frameHeight, width: frameWidth } = await nextResult(filming);
  await shoot(filming, "camera");
  await filming.locator("#camera").click();
  const button = await text(filming, "camera");
  await filming.context().close();

  const context = await browser.newContext({
    viewport: { width: 390, height: 800 }, colorScheme: "dark",
  });
  const phone = await context.newPage();
  await phone.goto(url);
  const shown = nextResult(phone);
  await phone.locator("#file").setInputFiles(image);
  await shown;
  await shoot(phone, "phone");
  await context.route("**/model.onnx", (route) => route.fulfill({ status: 404 }));
  await phone.reload();
  await phone.locator("#error").waitFor();
  const notLoaded = await text(phone, "error");
  await browser.close();

  console.log(JSON.stringify({
    requests, problems, focused, height, width, milliseconds, status, legend, notAnImage, refused,
    frame: [frameHeight, frameWidth], streams, button, notLoaded,
  }));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
