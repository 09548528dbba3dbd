"""Results that are of use only to whoever waits for them now: a click on a picture, not a task's prediction."""

from __future__ import annotations

from dataclasses import replace

from fleet import PROJECT, Fleet, until

from worker.contract import outbox_key, sending_key


def test_a_click_that_was_given_up_is_not_pushed(fleet: Fleet) -> None:
    click = replace(fleet.request(1), push=False)
    task = fleet.request(2)
    assert fleet.jobs.submit([click, task], interactive=True, wait=0.0) == {}
    fleet.start()
    until(lambda: fleet.client.hexists(outbox_key(PROJECT), "2"), "the task's result")
    until(lambda: fleet.job(click).get("status") == "finished", "the click's result")
    assert not fleet.client.hexists(outbox_key(PROJECT), "1")
    # It is there for the next click at the same place.
    assert set(fleet.jobs.submit([click], interactive=True, wait=0.0)) == {1}


def test_a_click_takes_nothing_from_the_tasks_own_way(fleet: Fleet) -> None:
    task = fleet.request(1)
    click = replace(task, push=False)
    assert task.job_id != click.job_id
    fleet.start()
    fleet.jobs.submit([task], interactive=False, wait=0.0)
    until(lambda: fleet.client.hexists(outbox_key(PROJECT), "1"), "the task's result")
    fleet.jobs.submit([click], interactive=True, wait=0.0)
    until(lambda: fleet.job(click).get("status") == "finished", "the click's result")
    assert set(fleet.jobs.submit([click], interactive=True, wait=0.0)) == {1}
    assert fleet.client.hexists(outbox_key(PROJECT), "1") or fleet.client.hexists(sending_key(PROJECT), "1")
