"""For Airflow: a DAG of one or two commands."""

from __future__ import annotations

from adapterctl.scheduling import quoting
from adapterctl.scheduling.job import EXIT_CODES, HOPELESS, UNCHANGED, EmittedFile, Job, comment
from adapterctl.scheduling.templates import fill


def files(job: Job) -> tuple[EmittedFile, ...]:
    """Return the DAG."""
    assert job.cron is not None
    promotion = job.promotion()
    values = {
        "name": job.name,
        "dag": repr(job.name),
        "exit_codes": comment(EXIT_CODES),
        "secret_help": comment(_about_secret(job)),
        "schedule": repr(job.cron.text),
        "timezone": repr(job.timezone or "UTC"),
        "retries": str(job.tries_again),
        "limit": str(job.seconds),
        "hopeless": "|".join(map(str, HOPELESS)),
        "unchanged": str(UNCHANGED),
        "environment": "\n".join(_environment(job)),
        "promotion": f'promote = command("promote", {quoting.shell(promotion)!r})' if promotion else "",
        "update": f'update = command("update", {quoting.shell(job.update())!r})',
        "order": "promote >> update" if promotion else "",
    }
    return (EmittedFile(f"{job.name.replace('-', '_')}.py", fill("dag.py.in", values)),)


def _about_secret(job: Job) -> str:
    if job.secret is None:
        return "Without --secret the registry is what adapterctl.yaml says, or what the workers' environment says."
    return (
        f"The registry is the connection '{job.secret}': type HTTP, Host is the whole MLFLOW_TRACKING_URI\n"
        f"(https://mlflow.example.com), Login and Password the user's. Airflow keeps it encrypted and masks it in logs."
    )


def _environment(job: Job) -> list[str]:
    lines = []
    if job.state_dir:
        lines.append(f'    "ADAPTERCTL_STATE_DIR": literal({job.state_dir!r}),')
    if job.secret:
        found = f"conn.get('{job.secret}')"
        for variable, field in (("URI", "host"), ("USERNAME", "login"), ("PASSWORD", "password")):
            text = "{{ " + f"{found}.{field} or ''" + " }}"
            lines.append(f'    "MLFLOW_TRACKING_{variable}": "{text}",')
    return ["ENVIRONMENT = {", *lines, "}"] if lines else ["ENVIRONMENT: dict[str, str] = {}"]
