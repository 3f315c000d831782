#!/usr/bin/env bash
# The challenge's entry point: answers every case in ROOT/inputs in ROOT/outputs.
#   bash /auto_run.sh [ROOT]     ROOT is the mount, /pdcad
# BUNDLE and SEGMENTATION name other bundles than those in the image.
set -euo pipefail
ROOT=${1:-/pdcad}
exec "${PYTHON:-python}" -m mrn_components.app.cli challenge "$ROOT/inputs" "$ROOT/outputs" \
    --bundle "${BUNDLE:-/opt/mrn/bundles/mrn}" --segmentation "${SEGMENTATION:-/opt/mrn/bundles/segmentation}"
