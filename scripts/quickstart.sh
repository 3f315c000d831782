#!/usr/bin/env bash
# From nothing to a trained and evaluated patient classifier on synthetic subjects, on two CPU cores:
# environment, phantoms, training, evaluation on held-out subjects, prediction.
#   scripts/quickstart.sh             the tour, at most 10 minutes after the installation
#   scripts/quickstart.sh --shuffled  the negative control: labels shuffled everywhere, nothing to find
# VENV names the virtual environment (default .venv).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
case "${1:-}" in
    "") NAME=quickstart TITLE="true labels" ;;
    --shuffled) NAME=quickstart-shuffled TITLE="shuffled labels" ;;
    *) echo "usage: scripts/quickstart.sh [--shuffled]" >&2; exit 2 ;;
esac
CONFIGS=bundles/mrn/configs
RUN=bundles/mrn/runs/$NAME

step() { printf '\n== %s\n' "$*"; }
bundle_run() { python -W ignore -m monai.bundle run "$@"; }

step "1/5 environment"
install_package .
. "$VENV/bin/activate"

step "2/5 synthetic subjects, disease as large as published"
mrn phantom data/phantom --subjects 96 --seed 1 --view midbrain
mrn phantom data/phantom-test --subjects 80 --seed 2 --view midbrain
shuffle_labels() {  # shuffle_labels COHORT: its csv with the labels permuted, beside the cohort
    paste -d, <(cut -d, -f1 "data/$1/train_cases.csv") \
        <(cut -d, -f2 "data/$1/train_cases.csv" | shuf --random-source=<(yes)) > "data/$1-shuffled.csv"
}
TRAIN_LABELS=() TEST_LABELS=() TEST_TABLE=data/phantom-test/train_cases.csv
if [ "$NAME" = quickstart-shuffled ]; then
    shuffle_labels phantom
    shuffle_labels phantom-test
    TRAIN_LABELS=(--labels "$PWD/data/phantom-shuffled.csv")
    TEST_TABLE=data/phantom-test-shuffled.csv
    TEST_LABELS=(--labels "$PWD/$TEST_TABLE")
fi

step "3/5 training the CPU-sized MRN ($TITLE)"
rm -rf "$RUN"
bundle_run --config_file "['$CONFIGS/train.yaml','$CONFIGS/small.yaml']" --run_name $NAME ${TRAIN_LABELS[@]+"${TRAIN_LABELS[@]}"}

step "4/5 evaluation on subjects the training has not seen"
bundle_run --config_file "['$RUN/configs/inference.json','$RUN/configs/evaluate.yaml']" \
    --dataset_dir data/phantom-test ${TEST_LABELS[@]+"${TEST_LABELS[@]}"}

step "5/5 prediction without labels, and what the labels say of it"
mrn predict data/phantom-test "$RUN/predictions" --bundle "$RUN"

step "Held-out phantoms, $TITLE"
mrn evaluate "$RUN/predictions" "$TEST_TABLE"
cat <<EOF

weights       $RUN/models/model.pt
curves        tensorboard --logdir $RUN/tensorboard
predictions   $RUN/predictions/predictions.csv
metrics       $RUN/predictions/evaluation/report.html
Research use only: trained on synthetic subjects, this says that the system works and nothing about patients.
EOF
