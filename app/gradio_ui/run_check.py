"""What the preflight says of the project and this computer; images are looked at in the background."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import replace
from html import escape
from threading import Lock

from app import texts
from app.gradio_ui import markup
from app.gradio_ui.models import reader, support_key
from univg.errors import InputError
from univg.io import Finding
from univg.workflow.machine import Machine, look_at_machine
from univg.workflow.preflight import check_machine, check_project, check_single, missing_weights
from univg.workflow.presets import PRESETS
from univg.workflow.project import Project

_KEPT = 8
_SECONDS = 60.0
_checks: OrderedDict[tuple, Future] = OrderedDict()
_lock = Lock()


def support_check(project: Project, preset: str) -> Future:
    """Findings about the annotated pairs as they are now, once they are worked out."""
    hold_out = PRESETS[preset].hold_out
    key = (project.path, project.modality, hold_out, support_key(project))
    with _lock:
        if key not in _checks:
            _checks[key] = reader.submit(check_project, project, hold_out=hold_out)
            while len(_checks) > _KEPT:
                _checks.popitem(last=False)
        return _checks[key]


def machine_for(project: Project, device: str) -> Machine:
    return look_at_machine(project.path, device)


def findings_before(project: Project, preset: str, device: str) -> list[Finding]:
    """All findings about a run, waiting for those of the images."""
    try:
        of_support = support_check(project, preset).result(_SECONDS)
    except TimeoutError:
        raise InputError("The images could not be looked at within a minute", fix="Try again.") from None
    return _in_words_of_the_page(project, [*of_support, *_of_now(project, preset, device)])


def signature(project: Project, preset: str, device: str) -> tuple:
    """Cheap, and different whenever `view` would be."""
    of_now = tuple(_of_now(project, preset, device))
    return project.path, preset, device, support_check(project, preset).done(), support_key(project), of_now


def view(project: Project, preset: str, device: str) -> str:
    """One line of good news, or the list of problems."""
    check = support_check(project, preset)
    if not check.done():
        return markup.line(texts.PREFLIGHT_WAIT, "help")
    findings = _in_words_of_the_page(project, [*check.result(), *_of_now(project, preset, device)])
    if findings:
        named = [replace(f, subject=texts.PREFLIGHT_SUBJECTS.get(f.subject, f.subject)) for f in findings]
        return markup.findings_list(named)
    icon, word = texts.LEVELS["ok"]
    line = texts.PREFLIGHT_OK.format(count=len(project.support_names()))
    return f'<p class="line good"><span role="img" aria-label="{word}">{icon}</span> {escape(line)}</p>'


def _of_now(project: Project, preset: str, device: str) -> list[Finding]:
    """What needs no look at the images."""
    chosen = PRESETS[preset]
    single = check_single(project) if chosen.engine_pairs else []
    return [*single, *check_machine(chosen, machine_for(project, device), missing=missing_weights(chosen))]


def _in_words_of_the_page(project: Project, findings: list[Finding]) -> list[Finding]:
    """`findings` with presets, devices and kinds of images called as the controls call them."""
    words = {
        f"the kind {project.modality}": f"the kind “{texts.MODALITIES[project.modality]}”",
        **texts.PREFLIGHT_WORDS,
    }
    found = []
    for finding in findings:
        message, fix = finding.message, finding.fix
        for library, page in words.items():
            message, fix = message.replace(library, page), fix.replace(library, page)
        found.append(replace(finding, message=message, fix=fix))
    return found
