"""`extraction deploy --out DIR`: the specs as files for `az ml`, checked before they are written, with the steps of a careful rollout."""

from __future__ import annotations

from pathlib import Path

import yaml

from extraction_assets.serving.azure_specs import checked_specs
from extraction_assets.serving.bundle import Bundle
from extraction_assets.serving.containers import container_files
from extraction_assets.settings import DeploymentSettings
from extraction_assets.store import write_atomically

_ROLLOUT = """\
#!/bin/sh
# Blue/green: the new deployment gets no traffic before it has answered, then {mirror} % mirrored, then 10 %, then all. Stop where a step fails:
# traffic stays as it is. Set OLD to the deployment that serves now, or leave it empty the first time. Needs `az` with the ml extension, logged in.
set -eu
NEW={new}
az ml online-endpoint show --name {endpoint} >/dev/null 2>&1 || az ml online-endpoint create --file endpoint.yml
az ml online-deployment create --file deployment.yml
az ml online-endpoint invoke --name {endpoint} --deployment-name "$NEW" --request-file "${{SMOKE:?a JSON request with a page that you know}}"
if [ -n "${{OLD:-}}" ]; then
  az ml online-endpoint update --name {endpoint} --mirror-traffic "$NEW={mirror}"
  echo "mirroring; look at the new deployment's errors and latencies, then press Enter" && read -r _
  az ml online-endpoint update --name {endpoint} --mirror-traffic "$NEW=0"
  az ml online-endpoint update --name {endpoint} --traffic "$OLD=90 $NEW=10"
  echo "10 %; press Enter to go on, Ctrl-C and --traffic '$OLD=100 $NEW=0' to go back" && read -r _
  az ml online-endpoint update --name {endpoint} --traffic "$OLD=0 $NEW=100"
  az ml online-deployment delete --name "$OLD" --endpoint-name {endpoint} --yes
else
  az ml online-endpoint update --name {endpoint} --traffic "$NEW=100"
fi
"""


def write_specs(bundle: Bundle, settings: DeploymentSettings, out: Path) -> list[Path]:
    """endpoint.yml, deployment.yml, the container's files and rollout.sh in `out`. Raises InputError with all that is wrong; nothing is written then."""
    specs = checked_specs(bundle, settings)
    rollout = _ROLLOUT.format(endpoint=settings.endpoint, new=specs.deployment["name"], mirror=settings.mirror)
    parts = {
        "endpoint.yml": yaml.safe_dump(specs.endpoint, sort_keys=False),
        "deployment.yml": yaml.safe_dump(specs.deployment, sort_keys=False),
        **container_files(bundle, settings),
        "rollout.sh": rollout,
    }
    for name, text in parts.items():
        write_atomically(out / name, text.encode())
    return [out / name for name in parts]
