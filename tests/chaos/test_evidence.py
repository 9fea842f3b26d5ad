"""The evidence of a run: which problems are explained, and by what."""

from __future__ import annotations

import json
from types import SimpleNamespace

from chaos.evidence import write_evidence
from chaos.facts import Problem, pick_examples
from chaos.report import Report


def problems(kind: str, subject: str, count: int) -> list[Problem]:
    return [Problem(kind, f"{subject} {number}: gone", (str(number),)) for number in range(count)]


def test_examples_name_every_subject_when_one_has_hundreds():
    # Given a run in which many calls, few webhooks and one job are lost
    found = problems("lost", "call", 300) + problems("lost", "webhook", 3)
    found += problems("lost", "job", 1) + problems("drift", "wallet", 2)
    # When twenty of the lost ones are picked
    picked = pick_examples(found, "lost", 20)
    # Then the subjects alternate, until one has no more
    subjects = [one.subject for one in picked]
    assert subjects[:7] == ["call", "webhook", "job", "call", "webhook", "call", "webhook"]
    assert subjects[7:] == ["call"] * 13
    assert len(set(picked)) == 20


def test_examples_name_every_subject_when_there_are_too_many():
    found = [one for number in range(30) for one in problems("lost", f"subject-{number}", 2)]
    assert pick_examples(found, "lost", 20) == found[::2]


def test_evidence_explains_the_job_behind_many_lost_debits(world, urls, tmp_path):
    # Given a job that waits, and more lost debits than are explained of one kind
    job_id = world.stage("reconcile_calls")
    system = SimpleNamespace(
        journal=tmp_path / "journal",
        logs=tmp_path,
        owner_url=urls.owner_url,
        control=world.sandbox.control,
    )
    report = Report(1, 1.0, "")
    report.problems = problems("lost", "debit", 50)
    report.problems.append(Problem("lost", f"job {job_id} x: waiting", (job_id,)))
    # When the evidence is written
    path = tmp_path / "evidence.json"
    write_evidence(system, report, path)
    # Then the job is explained by its row
    written = json.loads(path.read_text())
    job = next(one for one in written["explained"] if one["text"].startswith("job "))
    assert any(job_id in row for row in job["evidence"]["table jobs"])
    assert len(written["problems"]) == 51
