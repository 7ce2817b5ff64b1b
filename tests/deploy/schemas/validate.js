// Reads a JSON list of KEDA's and the Prometheus operator's resources from standard input; throws for the first that
// does not fit its schema.
import { readFileSync } from "node:fs";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";

const kinds = { ScaledObject, PodMonitor };
for (const resource of JSON.parse(readFileSync(0))) {
  new kinds[resource.kind](resource).validate();
}
