// Loads npm packages from the folder that POSTERN_BROWSER_MODULES names, outside of the source tree.
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const folder = process.env.POSTERN_BROWSER_MODULES;
if (!folder) throw new Error("POSTERN_BROWSER_MODULES is not set");
export const load = createRequire(join(resolve(folder), "package.json"));
