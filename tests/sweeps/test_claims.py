"""Catches: a run that two sweeps compute, one that nobody computes, a live writer taken for a dead one."""

import multiprocessing
import os
import threading
from pathlib import Path

import pytest
from sweeping import BASE, RUNS, same, stored, sweep

import nin
from nin.sweeps import claims, writers
from nin.sweeps.claims import Claims
from nin.sweeps.keys import Keys
from nin.sweeps.store import Store

KEYS = ["a" * 64, "b" * 64]


def as_another_thread(function):
    """Call a function in a thread of its own: a sweep within another one of the same thread does not wait for it."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def files(store: Store) -> list[str]:
    return sorted(path.name for path in (store.folder / "claims").rglob("*") if path.is_file())


def test_a_claim_is_one_writers_until_it_is_given_back(tmp_path):
    store = Store(tmp_path)
    with Claims(store) as first, Claims(store) as second:
        assert first.take(KEYS[:1]) == KEYS[:1] == first.take(KEYS[:1])
        assert as_another_thread(lambda: second.take(KEYS)) == []
        assert as_another_thread(lambda: second.take(KEYS[::-1])) == KEYS[1:]
        first.release(KEYS[:1])
        assert as_another_thread(lambda: second.take(KEYS)) == KEYS
    assert files(store) == []


def die_with_a_claim(folder: Path) -> None:
    Claims(Store(folder)).__enter__().take(KEYS)
    os._exit(1)


def test_the_claim_of_a_process_that_died_is_taken_over_at_once(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=die_with_a_claim, args=(tmp_path,))
    process.start()
    process.join()
    (writer,) = {path.read_text() for path in (tmp_path / "claims").glob("*.0")}
    assert writers.lives(writer) is False
    with Claims(Store(tmp_path)) as ours:
        assert ours.take(KEYS) == KEYS
        with Claims(Store(tmp_path)) as third:
            assert as_another_thread(lambda: third.take(KEYS)) == []
    assert files(Store(tmp_path)) == [writer]


def test_claims_of_the_dead_on_stored_runs_are_deleted(tmp_path):
    """A writer that dies between storing a run and giving its claim back; nobody asks for that run again."""
    sweep(tmp_path, over={"seed": [0]})
    (key,) = Store(tmp_path)
    dead = writers.new_name().replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    with Claims(Store(tmp_path)) as living:
        for name, writer in ((f"{key}.0", dead), (f"{key}.1", living._name), (f"{KEYS[0]}.0", dead)):
            (tmp_path / "claims" / name).write_text(writer)
        sweep(tmp_path, over={"seed": [1]})
        assert files(Store(tmp_path)) == sorted([f"{key}.1", f"{KEYS[0]}.0", living._name])


def test_another_process_with_the_number_of_a_dead_one_is_another_process():
    name = writers.new_name()
    machine, pid, start, rest = name.split("-")
    assert writers.lives(name) is True
    assert writers.lives("-".join([machine, pid, str(int(start) - 1), rest])) is False
    assert writers.lives("-".join(["elsewhere", pid, start, rest])) is None
    assert writers.lives("") is None


@pytest.mark.parametrize("clock", [-172800, 0, 172800])
def test_on_another_machine_a_sign_of_life_counts_and_no_clock(tmp_path, monkeypatch, clock):
    now = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    with Claims(Store(tmp_path)) as ours:
        far = tmp_path / "claims" / "writers" / "far-1-2-3"
        far.touch()
        (tmp_path / "claims" / f"{KEYS[0]}.0").write_text(far.name)
        times = os.stat(far).st_mtime + clock
        for sign in range(3):
            os.utime(far, (times + sign, times + sign))
            assert ours.take(KEYS[:1]) == []
            now[0] += claims.LEASE + 1
        assert ours.take(KEYS[:1]) == KEYS[:1]
    assert (tmp_path / "claims").exists() and files(Store(tmp_path)) == [far.name]


def test_a_claim_without_a_name_holds_for_a_lease(tmp_path, monkeypatch):
    """A writer died, or is about to write its name."""
    now = [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    with Claims(Store(tmp_path)) as ours:
        (tmp_path / "claims" / f"{KEYS[0]}.0").touch()
        assert ours.take(KEYS[:1]) == []
        now[0] += claims.LEASE + 1
        assert ours.take(KEYS[:1]) == KEYS[:1]


def test_a_claim_that_was_given_back_while_it_was_judged_is_nobodys(tmp_path, monkeypatch):
    """The dead writer's claim is taken over, given back and claimed anew between our look and our claim."""
    store = Store(tmp_path)
    with Claims(store) as ours, Claims(store) as other:
        path = tmp_path / "claims" / f"{KEYS[0]}.0"
        path.write_text("dead")

        def judged(self, file):
            monkeypatch.undo()
            path.unlink()
            assert as_another_thread(lambda: other.take(KEYS[:1])) == KEYS[:1]
            return False

        monkeypatch.setattr(Claims, "_touched", judged)
        assert ours.take(KEYS[:1]) == []
        assert as_another_thread(lambda: other.take(KEYS[:1])) == KEYS[:1]
        assert path.exists() and not path.with_suffix(".1").exists()


def test_signs_of_life_go_on_if_the_folder_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.01)
    with Claims(Store(tmp_path / "store")):
        file = next((tmp_path / "store" / "claims" / "writers").iterdir())
        file.unlink()
        for _ in range(500):
            if file.exists():
                break
            threading.Event().wait(0.01)
        assert file.exists()
    assert not file.exists()


def test_a_sweep_leaves_no_claims_and_no_thread(tmp_path):
    before = threading.active_count()
    frame = sweep(tmp_path)
    assert files(Store(tmp_path)) == [] and threading.active_count() == before
    same(sweep(tmp_path), frame)


def test_a_sweep_that_fails_gives_its_claims_back(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr("nin.sweeps.jobs.train", fails)
        sweep(tmp_path)
    assert files(Store(tmp_path)) == []
    sweep(tmp_path)
    assert len(stored(tmp_path)) == RUNS


def test_what_another_computes_is_awaited_and_read(tmp_path, monkeypatch):
    """One run is another's: the others are computed first, and it is computed only once its claim is given back."""
    monkeypatch.setattr("nin.sweeps.executors.PAUSE", 0.01)
    store, order, train = Store(tmp_path), [], nin.sweeps.jobs.train
    keys = [Keys(None, None, "cpu").of_run(BASE.replace(seed=0))]
    with Claims(store) as other:
        assert as_another_thread(lambda: other.take(keys)) == keys
        here = claims._here.pop(other._name)  # that of another process

        def logged(configs, **arguments):
            order.append([config.seed for config in configs])
            if len(order) == 1:
                threading.Timer(0.3, lambda: other.release(keys)).start()
            return train(configs, **arguments)

        monkeypatch.setattr("nin.sweeps.jobs.train", logged)
        frame = sweep(tmp_path, over={"seed": [0, 1, 2, 3]})
        claims._here[other._name] = here
    assert order == [[2, 3], [0, 1]]
    same(frame, sweep(tmp_path / "first", over={"seed": [0, 1, 2, 3]}))
