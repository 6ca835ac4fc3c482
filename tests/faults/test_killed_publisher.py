"""Rows 1, 2 and 7: publishers that are killed, told to end, or hold the lock; readers and the next publisher then."""

import signal
import time

import pytest
from deaths import assert_readable, assert_settled, run, start, wait_until_stopped
from registries import publish

from crossrisk.errors import PublishError
from crossrisk.registry import Registry, locked
from crossrisk.registry.protocol import STEPS

NOW = 1_700_000_000
IS_PLACED = {step: STEPS.index(step) >= STEPS.index("renamed") for step in STEPS}
"""whether the new version stands after a death at that step"""


@pytest.fixture
def registry(tmp_path):
    """Two versions."""
    made = Registry(tmp_path / "r")
    for place in range(2):
        publish(made, NOW + place, str(place))
    return made


@pytest.mark.fault(1)
@pytest.mark.parametrize("step", STEPS)
def test_a_publisher_killed_at_any_step_leaves_the_old_or_the_new_version_whole(registry, step):
    died = run(registry, "publish", failpoint=f"publish.{step}=kill")
    assert died.returncode == -signal.SIGKILL, died.stderr
    seen = assert_readable(registry)
    assert (seen > NOW + 1) == IS_PLACED[step]
    assert assert_settled(registry) == seen
    assert len(registry.versions()) == (3 if IS_PLACED[step] else 2)
    after = run(registry, "publish", "after")
    assert after.returncode == 0, after.stderr
    assert assert_settled(registry) == int(after.stdout) > seen


@pytest.mark.fault(1)
@pytest.mark.parametrize("step", ["verified", "manifested", "renamed", "committed", "configured"])
def test_what_waited_for_a_person_still_waits_unless_its_version_stands(registry, step):
    run(registry, "keep", "waits")
    run(registry, "rule", "waits", failpoint=f"publish.{step}=kill")
    seen = assert_settled(registry)
    assert (seen > NOW + 1) == IS_PLACED[step]
    assert (registry.pending / "waits").exists() == (not IS_PLACED[step])
    again = run(registry, "rule", "waits")
    assert again.returncode == (1 if IS_PLACED[step] else 0), again.stderr
    assert ("nothing pending" in again.stderr) == IS_PLACED[step]
    assert len(registry.versions()) == 3


@pytest.mark.fault(1)
def test_a_rollback_killed_before_and_after_its_rename_can_be_typed_again(registry):
    for step in ("intended", "renamed"):
        run(registry, "rollback", failpoint=f"publish.{step}=kill")
        assert_readable(registry)
        assert_settled(registry)
    again = run(registry, "rollback")
    assert again.returncode == 0, again.stderr
    champion = registry.version(assert_settled(registry))
    assert (champion.version, champion.manifest["restores"]) == (int(again.stdout), NOW)
    assert len(registry.versions()) == 3


@pytest.mark.fault(1)
@pytest.mark.parametrize("step", ["moved", "committed", "removed"])
def test_a_pruning_killed_at_any_step_is_finished(registry, step):
    died = run(registry, "prune", failpoint=f"prune.{step}=kill")
    assert died.returncode == -signal.SIGKILL
    assert assert_readable(registry) == assert_settled(registry) == NOW + 1
    assert registry.versions() == [NOW + 1]


@pytest.mark.fault(1)
def test_deaths_upon_deaths_change_nothing_but_time(registry):
    """Recovery may die as well: whoever comes next goes on from there."""
    run(registry, "publish", failpoint="publish.renamed=kill")
    for step in ("placed", "committed", "pointed", "configured"):
        died = run(registry, "publish", "other", failpoint=f"publish.{step}=kill")  # while it finishes the first
        assert died.returncode == -signal.SIGKILL
        assert_readable(registry)
    assert_settled(registry)
    assert len(registry.versions()) == 3


@pytest.mark.fault(2)
@pytest.mark.parametrize(
    ("told", "step"), [*(("int", step) for step in STEPS), ("term", "intended"), ("term", "renamed")]
)
def test_a_publisher_told_to_end_leaves_a_settled_registry(registry, step, told):
    ended = run(registry, "publish", failpoint=f"publish.{step}={told}")
    assert ended.returncode != 0
    seen = assert_readable(registry)
    if told == "int":  # it had the time to settle things itself
        assert not registry.intent.exists()
    assert assert_settled(registry) == seen


@pytest.mark.fault(7)
def test_a_lock_left_by_a_killed_process_is_free_at_once(registry):
    run(registry, "publish", failpoint="publish.locked=kill")
    started = time.monotonic()
    with locked(registry, timeout_s=0.0):
        pass
    assert time.monotonic() - started < 5


@pytest.mark.fault(7)
def test_a_lock_held_by_a_living_process_is_waited_for_with_a_limit_that_names_it(registry):
    holder = start(registry, "publish", failpoint="publish.verified=stop")
    try:
        wait_until_stopped(holder)
        said = rf"another publisher holds .*process {holder.pid} on .*waited for 1 s"
        with pytest.raises(PublishError, match=said), locked(registry, timeout_s=1.0):
            pass
        assert registry.champion().version == NOW + 1  # readers do not wait
        holder.send_signal(signal.SIGCONT)
        with locked(registry, timeout_s=30.0):
            assert registry.champion().version > NOW + 1
        assert holder.wait(30) == 0
    finally:
        holder.kill()
        holder.communicate()
