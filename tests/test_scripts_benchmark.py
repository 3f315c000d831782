import importlib.util
import json
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[1] / "scripts" / "benchmark.py"
    spec = importlib.util.spec_from_file_location("benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def mrn(script):
    torch.manual_seed(0)
    return script._config("small").get_parsed_content("network").eval()


@pytest.mark.parametrize("dpt", [False, True])
def test_yardstick_computes_what_the_network_does_on_squares(dpt, script, mrn):
    images = {roi: [torch.rand(1, d, 28, 28) for d in (2, 3)] for roi in mrn.rois}
    with torch.no_grad():
        plain = script.plain_forward(script.with_plain_patches(mrn), images, dpt=dpt)
        torch.testing.assert_close(plain, mrn(images)["logits"], atol=1e-5, rtol=1e-5)


def test_counted_operations_follow_the_shapes(script, mrn):
    def count(depth):
        images = {roi: [torch.rand(1, depth, 28, 28)] for roi in mrn.rois}
        return script._count(torch.no_grad()(lambda: mrn(images)))

    (linear, attention, operations), (linear_2, attention_2, operations_2) = count(2), count(4)
    assert linear_2 == pytest.approx(2 * linear, rel=0.02)  # but for ROI token and classifier
    assert operations == operations_2 > 100
    assert 2 * attention < attention_2 < 4 * attention  # local and global attention
    assert all(parameter.grad is None for parameter in mrn.parameters())


def test_training_case_runs_the_bundles_step(script, capsys, monkeypatch):
    monkeypatch.setattr(script, "SHAPES", dict.fromkeys(script.SHAPES, (1, 56, 112)))
    monkeypatch.setattr(script, "_speeds", lambda *_: (1e12, 1e12))
    script.run_case("small", "train-fp32-b1", 0, torch.get_num_threads())
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["subjects"] == 1
    assert 0 < result["limit_seconds"] < result["seconds"]
    assert result["of_limit"] == pytest.approx(result["limit_seconds"] / result["seconds"])
    script.run_case("small", "count-fp32-b1", 0, torch.get_num_threads())
    counted = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert counted["operations"] == result["operations"]
    assert "seconds" not in counted


def test_encoder_case_compares_equal_tokens(script, mrn):
    volumes = [torch.rand(shape) for shape in [(2, 28, 30), (1, 14, 28), (3, 28, 30)]]
    encoder = mrn.res.encoder
    with torch.no_grad():
        expected = script._by_shape(encoder, volumes)
        torch.testing.assert_close(encoder(volumes)[0][0], expected, atol=1e-5, rtol=1e-5)


def test_unknown_case_is_named(script):
    with pytest.raises(ValueError, match=r"must begin with .*got 'predict-fp32'"):
        script.run_case("small", "predict-fp32", 0, 1)


@pytest.mark.slow
def test_command_writes_json_and_a_table(script, tmp_path, capsys):
    path = tmp_path / "b.json"
    script.benchmark(network="small", cases="infer-fp32", repeats=0, threads=1, json_path=str(path))
    report = json.loads(path.read_text())
    assert report["results"][0]["case"] == "infer-fp32"
    assert report["results"][0]["peak_gib"] > 0.1
    assert "| infer-fp32 |" in capsys.readouterr().out


def test_table_compares_with_the_yardstick_and_shows_failures(script):
    timed = {"subjects": 1, "tflop": 1.0, "limit_seconds": 1.0, "peak_gib": 1.0}
    results = [
        {"case": "yardstick", **timed, "seconds": 4.0, "of_limit": 0.25},
        {"case": "infer-fp32", **timed, "seconds": 2.0, "of_limit": 0.5, "operations": 7},
        {"case": "count-fp32-b1", "subjects": 1, "tflop": 3.0, "peak_gib": 1.0, "operations": 9},
        {"case": "data", "failed": "exit status 1"},
    ]
    machine = {"device": "cpu", "threads": 1, "torch": "2"}
    rows = script._table({"network": "small", "machine": machine, "results": results}).splitlines()
    assert rows[-3] == "| infer-fp32 | 2 | 1 | 1 | 50% | 1.0 | 0.5 | 2.00 | 7 |"
    assert rows[-2] == "| count-fp32-b1 |  | 3 |  |  | 1.0 |  |  | 9 |"
    assert "exit status 1" in rows[-1]
