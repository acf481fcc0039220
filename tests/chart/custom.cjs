// Checks custom resources against the schemas of their projects: prints each error, and the number of checked objects.
//
// node custom.cjs FILE: a JSON list of objects. Packages come from MC_TEST_NODE_PATH.
"use strict";
const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");

const load = createRequire(process.env.MC_TEST_NODE_PATH + "/");
const MODELS = {
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/",
  "keda.sh/v1alpha1": "@kubernetes-models/keda/keda.sh/v1alpha1/",
  "gateway.networking.k8s.io/v1": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/",
};

let checked = 0;
for (const object of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  const folder = MODELS[object.apiVersion];
  if (!folder) throw new Error(`no models for ${object.apiVersion} ${object.kind}`);
  const Model = load(folder + object.kind)[object.kind];
  try {
    new Model(object).validate();
    checked += 1;
  } catch (fault) {
    console.log(`${object.kind} ${object.metadata?.name}: ${fault.message}`);
  }
}
console.log(`${checked} checked`);
