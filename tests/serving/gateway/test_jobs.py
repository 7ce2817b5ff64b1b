import time
from dataclasses import replace
from pathlib import Path

import pytest

from serving.gateway.jobs import DONE, RUNNING, Job, JobStore, Quota, new_job
from serving.gateway.policy import RefusedError

MEGABYTE = 10**6


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    """Keeps three jobs of together a megabyte for a minute."""
    return JobStore(tmp_path / "jobs", Quota(3, MEGABYTE, 60))


def added(store: JobStore, size: int = 100, age: float = 0, **changes: object) -> Job:
    job = replace(new_job({"mpp": "4"}, "", False), created=time.time() - age)
    store.add(job, b"x" * size)
    job = replace(job, **changes)  # type: ignore[arg-type]
    store.write(job)
    return job


def ids(store: JobStore) -> list[str]:
    return [job.id for job in store.all()]


def test_a_job_is_what_was_written(store: JobStore, tmp_path: Path) -> None:
    job = added(store, state=RUNNING, pid=7)
    assert JobStore(tmp_path / "jobs", Quota(3, MEGABYTE, 60)).read(job.id) == job


def test_ids_are_long_and_all_different() -> None:
    jobs = {new_job({}, "", False).id for _ in range(1000)}
    assert len(jobs) == 1000
    assert {len(identity) for identity in jobs} == {22}


def test_the_oldest_finished_job_makes_room(store: JobStore) -> None:
    oldest, middle, latest = (added(store, age=age, state=DONE, finished=time.time()) for age in (30, 20, 10))
    new = added(store)
    assert ids(store) == [middle.id, latest.id, new.id]
    with pytest.raises(RefusedError):
        store.read(oldest.id)


def test_bytes_count_as_well(store: JobStore) -> None:
    first = added(store, size=600_000, age=5, state=DONE, finished=time.time())
    second = added(store, size=300_000)
    third = added(store, size=500_000)
    assert ids(store) == [second.id, third.id]
    assert first.id not in ids(store)


def test_an_unfinished_job_is_never_removed(store: JobStore) -> None:
    kept = [added(store, age=10_000) for _ in range(3)]
    with pytest.raises(RefusedError) as caught:
        added(store)
    assert (caught.value.status, caught.value.code) == (503, "jobs_full")
    store.remove_old()
    assert set(ids(store)) == {job.id for job in kept}


def test_finished_jobs_have_an_end(store: JobStore) -> None:
    old = added(store, state=DONE, finished=time.time() - 61)
    recent = added(store, state=DONE, finished=time.time() - 30)
    store.remove_old()
    assert ids(store) == [recent.id]
    assert not store.folder(old.id).exists()


def test_a_damaged_folder_is_left_alone(store: JobStore) -> None:
    job = added(store)
    (store.folder(job.id) / "job.json").write_text("{")
    assert store.all() == []
    with pytest.raises(RefusedError):
        store.read(job.id)
