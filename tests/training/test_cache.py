"""Crops of subjects do not outlive the training in its folder."""

import pytest
from ignite.engine import Engine

from mrn_components import CacheHandler


def run_with(cache, output):
    """What a run leaves of a cache of one crop."""
    cache.mkdir(parents=True)
    (cache / "crop.pt").touch()
    engine = Engine(lambda _engine, _batch: (cache / "crop.pt").stat())  # there while it trains
    CacheHandler(cache_dir=cache, output_dir=output).attach(engine)
    engine.run([0])
    return list(cache.rglob("*"))


def test_the_cache_in_a_runs_folder_ends_with_the_training(tmp_path):
    assert run_with(tmp_path / "run" / "cache", tmp_path / "run") == []
    assert (tmp_path / "run").is_dir()


@pytest.mark.parametrize("cache", ["cache", "run"])
def test_a_cache_elsewhere_stays_for_other_runs(tmp_path, cache):
    assert run_with(tmp_path / cache, tmp_path / "run") == [tmp_path / cache / "crop.pt"]


def test_a_run_may_cache_nothing(tmp_path):
    CacheHandler(cache_dir=None, output_dir=tmp_path).clear()
