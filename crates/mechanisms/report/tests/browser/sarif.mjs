// Validates a SARIF log against the schema of the standard: node sarif.mjs LOG
import { readFileSync } from "node:fs";
import { load } from "./modules.mjs";

const read = (path) => JSON.parse(readFileSync(path, "utf8"));
const Ajv = load("ajv-draft-04");
const ajv = new Ajv({ strict: false, allErrors: true });
load("ajv-formats")(ajv);
const validate = ajv.compile(read(process.env.POSTERN_SARIF_SCHEMA));
const path = process.argv[2];
if (!validate(read(path))) {
  for (const { instancePath, message } of validate.errors) console.error(`${path}: ${instancePath} ${message}`);
  process.exit(1);
}
