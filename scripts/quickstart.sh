#!/usr/bin/env bash
# From nothing to a trained and evaluated patient classifier on synthetic subjects, on two CPU cores:
# environment, phantoms, training, prediction of held-out subjects, what the labels say of it.
#   scripts/quickstart.sh             the tour, at most 10 minutes after the installation
#   scripts/quickstart.sh --cpu       with a build of PyTorch for the CPU, where there is one: 4 GB less
#   scripts/quickstart.sh --shuffled  the negative control: labels shuffled everywhere, nothing to find
# VENV names the virtual environment (default .venv), PYTHON what makes it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
NAME=quickstart TITLE="true labels" CPU=""
for option; do
    case "$option" in
        --shuffled) NAME=quickstart-shuffled TITLE="shuffled labels" ;;
        --cpu) CPU=--cpu ;;
        *) echo "usage: scripts/quickstart.sh [--cpu] [--shuffled]" >&2; exit 2 ;;
    esac
done
CONFIGS=bundles/mrn/configs
RUN=bundles/mrn/runs/$NAME

step() { printf '\n== %s\n' "$*"; }

step "1/5 environment"
install_package . $CPU
. "$VENV/bin/activate"

step "2/5 synthetic subjects, disease as large as published"
mrn phantom data/phantom --subjects 96 --seed 1 --view midbrain
mrn phantom data/phantom-test --subjects 80 --seed 2 --view midbrain
shuffle_labels() {  # shuffle_labels COHORT: its csv with the labels permuted, beside the cohort
    paste -d, <(cut -d, -f1 "data/$1/train_cases.csv") \
        <(cut -d, -f2 "data/$1/train_cases.csv" | shuf --random-source=<(yes)) > "data/$1-shuffled.csv"
}
TRAIN_LABELS=() TEST_TABLE=$PWD/data/phantom-test/train_cases.csv
if [ "$NAME" = quickstart-shuffled ]; then
    shuffle_labels phantom
    shuffle_labels phantom-test
    TRAIN_LABELS=(--labels "$PWD/data/phantom-shuffled.csv")
    TEST_TABLE=$PWD/data/phantom-test-shuffled.csv
fi

step "3/5 training the CPU-sized MRN ($TITLE)"
rm -rf "$RUN"
python -W ignore::UserWarning:monai.bundle.scripts -m monai.bundle run \
    --config_file "['$CONFIGS/train.yaml','$CONFIGS/small.yaml']" --run_name $NAME \
    ${TRAIN_LABELS[@]+"${TRAIN_LABELS[@]}"}

step "4/5 prediction of subjects that the training has not seen, with a page each"
mrn predict data/phantom-test "$RUN/predictions" --bundle "$RUN" --report

step "5/5 what the labels say of it ($TITLE), and of a regression on biomarkers of the same subjects"
mrn baseline data/phantom-test "$RUN/baseline" --labels "$TEST_TABLE" > "$RUN/baseline.log"
mrn evaluate "$RUN/predictions" "$TEST_TABLE" --against "$RUN/baseline" --names MRN,biomarkers
cat <<END

weights       $RUN/models/model.pt
curves        tensorboard --logdir $RUN/tensorboard
predictions   $RUN/predictions/predictions.csv
pages         file://$PWD/$RUN/predictions/index.html
metrics       file://$PWD/$RUN/predictions/evaluation/report.html
Research use only: trained on synthetic subjects, this says that the system works and nothing about patients.

Next, for images of your own (docs/how/data.md says how they may lie):
  . $VENV/bin/activate
  mrn check DIR                                            every fault of the data, before it is used
  mrn crossval DIR results/cv --configs small.yaml         train and score all folds; without small.yaml on a GPU
  mrn predict NEW results/new --bundle results/cv/ensemble --report
END
