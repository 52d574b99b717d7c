// node-casbin behind JSON lines: {folder, requests: [[subject, action, resource, context, consent, matrix], ...]} in,
// {answers: [[allowed, rule], ...]} or {error} out. Enforcers are kept by folder until the end of the input.
const readline = require("node:readline");
const path = require("node:path");
const { newEnforcer } = require("casbin");

const enforcers = new Map();

async function enforcerOf(folder) {
  if (!enforcers.has(folder)) {
    enforcers.set(folder, await newEnforcer(path.join(folder, "model.conf"), path.join(folder, "rules.csv")));
  }
  return enforcers.get(folder);
}

async function answer({ folder, requests }) {
  const enforcer = await enforcerOf(folder);
  // The synchronous form decides the same, several times faster.
  return requests.map((request) => enforcer.enforceExSync(...request)).map(([allowed, line]) => [allowed, line[0] ?? ""]);
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const reply = await answer(JSON.parse(line)).then((answers) => ({ answers }), (error) => ({ error: String(error.stack) }));
    process.stdout.write(JSON.stringify(reply) + "\n");
  }
}

main();
