"""The size of the last-level cache, as Linux tells it."""

import os

from quantplan.devices.speed.cpu_caches import last_level_cache


def cache(system, cpu, index, level, size, shared):
    folder = system / f"cpu{cpu}" / "cache" / f"index{index}"
    folder.mkdir(parents=True)
    for name, text in (("level", level), ("size", size), ("shared_cpu_list", shared)):
        (folder / name).write_text(f"{text}\n")


def test_last_level_counts_each_cache_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    for cpu, shared in ((0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")):
        cache(tmp_path, cpu, 0, 2, "1024K", cpu)
        cache(tmp_path, cpu, 1, 3, "32M", shared)
    assert last_level_cache(tmp_path) == 64 << 20


def test_unknown_is_none(tmp_path):
    assert last_level_cache(tmp_path) == 0
