"""Tables of predictions and labels, whole and faulty."""

import json

import pytest

from mrn_components.data import DataLeakageError
from mrn_components.data.predictions import labels_file, predictions_file, read_predictions
from mrn_components.data.tables import read_labels


@pytest.fixture
def write(tmp_path):
    def write(text, name="table.csv"):
        (tmp_path / name).write_bytes(text.encode())
        return tmp_path / name

    return write


def test_unknown_columns_their_order_a_bom_and_empty_lines_do_not_matter(write):
    table = write(
        "\ufefffold0, prob_pd,subject,class,label,trained_on\r\n"
        "0.1,0.25,S0,0,0,0\r\n\r\n0.2, 1 , S1,1,1,\r\n,0,S2,0,0,0.0\r\n"
    )
    assert read_predictions(table) == {"S0": 0.25, "S1": 1.0, "S2": 0.0}
    assert read_labels(table) == {"S0": 0, "S1": 1, "S2": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: expected a header with .* subject and prob_pd.*\['subject', 'prob_pd'\]"),
        ("S0,0.5\nS1,0.5\n", r"line 1: expected a header .* missing in 'S0,0.5'"),
        ("subject;prob_pd\nS0;0.5\n", "line 1: expected a header .* separated by commas"),
        ("subject,prob_pd\n\n", "has no subjects below its header"),
        ("subject,prob_pd\nS0,0.5\nS1,1.5\n", "line 3: prob_pd must be .* 0 to 1, got '1.5'"),
        ("subject,prob_pd\nS0,-0.1\n", "line 2: prob_pd must be .* got '-0.1'"),
        ("subject,prob_pd\nS0,nan\n", "line 2: prob_pd must be .* got 'nan'"),
        ("subject,prob_pd\nS0,\n", "line 2: prob_pd must be .* got ''.*take the line out"),
        ("subject,prob_pd\nS0,high\n", "line 2: prob_pd must be .* got 'high'"),
        ("subject,prob_pd\nS0,0,5\n", "line 2: expected 2 cells, as in the header, got 3"),
        ("subject,prob_pd\n ,0.5\n", "line 2: the subject is empty"),
        ("subject,prob_pd\nS0,0\nS1,0\ns0,1\n", "line 4: subject 's0' stands already on line 2"),
    ],
)
def test_faulty_predictions_name_file_and_line(write, text, message):
    with pytest.raises(ValueError, match=r"table\.csv") as error:
        read_predictions(write(text))
    error.match(message)


@pytest.mark.parametrize("mark", ["1", "True", "1.0"])
def test_subjects_of_the_training_are_refused(write, mark):
    table = write(f"subject,prob_pd,trained_on\nS0,0.5,0\nS1,0.5,{mark}\nS2,0.5,{mark}\n")
    with pytest.raises(DataLeakageError, match=r"trained on 2 of these.*\['S1', 'S2'\]"):
        read_predictions(table)


def test_labels_come_from_any_of_three_tables(write):
    expected = {"S0": 0, "S1": 1}
    entries = [{"subject": name, "label": label} for name, label in expected.items()]
    assert read_labels(write("S0,0\nS1,1\n")) == expected
    assert read_labels(write("S0,0,ann\nS1,1,bob\n")) == expected
    assert read_labels(write("subject,label\nS0,0\nS1,1\n")) == expected
    assert read_labels(write(json.dumps(entries), "list.json")) == expected
    assert read_labels(write(json.dumps({"training": entries}), "list.json")) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S0,0\nS1,MSA\n", "line 2: label must be 0"),
        ("subject,label\nS0,0\nS1,\n", "line 3: label must be 0 .* got ''"),
        ("subject,prob_pd,class\nS0,0.5,0\n", "line 1: expected .* columns subject and label"),
        ("", "has no line `case_id,label`"),
    ],
)
def test_faulty_labels_name_file_and_line(write, text, message):
    with pytest.raises(ValueError, match=r"table\.csv") as error:
        read_labels(write(text))
    error.match(message)


def test_a_folder_stands_for_its_predictions(write, tmp_path):
    table = write("subject,prob_pd\n", "predictions.csv")
    assert predictions_file(tmp_path) == predictions_file(table) == table
    assert labels_file(tmp_path, table) == table
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    (cohort / "train_cases.csv").write_text("S0,1\n")
    assert labels_file(cohort, table) == cohort / "train_cases.csv"
    with pytest.raises(FileNotFoundError, match="`mrn predict INPUT OUTPUT` writes"):
        predictions_file(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv' are neither .*rows `SUBJECT,0\|1`"):
        labels_file(tmp_path / "nowhere.csv", table)
