// Runs the checks of the modules named on the command line and prints a JSON line for each.
import fs from "node:fs";
import path from "node:path";
import { checks } from "./checks.mjs";

async function run(module) {
  checks.length = 0;
  try {
    await import(`./${module}.mjs`);
  } catch (error) {
    const source = fs.readFileSync(path.join(import.meta.dirname, `${module}.mjs`), "utf8");
    for (const [, name] of source.matchAll(/^check\("([^"]+)"/gm)) {
      checks.push({ name, run: () => Promise.reject(error) });
    }
  }
  for (const { name, run } of checks) {
    const began = Date.now();
    let error = "";
    try {
      await run();
    } catch (raised) {
      error = raised.stack ?? String(raised);
    }
    console.log(JSON.stringify({ check: `${module}: ${name}`, error, seconds: (Date.now() - began) / 1000 }));
  }
}

for (const module of process.argv.slice(2)) await run(module);
process.exit(0); // clients may hold connections open
