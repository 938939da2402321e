import pytest

from adapterctl.errors import RegistryError, StorageError
from adapterctl.registry.settings import ResolvedRegistry

HOST = ResolvedRegistry("https://me:geheim@mlflow.corp:5000", None, "adapterctl.yaml: registry.uri")


@pytest.mark.parametrize(
    ("said", "kind", "message", "hint"),
    [
        (
            "failed with error code 403 != 200. Response body: 'Invalid Host header",
            RegistryError,
            "refuses the host",
            "--allowed-hosts mlflow.corp:5000",
        ),
        ("API request failed with error code 401 != 200", RegistryError, "who you are", "MLFLOW_TRACKING_TOKEN"),
        ("PERMISSION_DENIED: Permission denied for user", RegistryError, "does not permit", "permission"),
        (
            "Max retries exceeded with url (Caused by SSLError(CERTIFICATE_VERIFY_FAILED",
            RegistryError,
            "certificate",
            "REQUESTS_CA_BUNDLE",
        ),
        ("HTTPConnectionPool: Max retries exceeded with url", RegistryError, "no MLflow answers", "registry.uri"),
        (
            "body was not in a valid JSON format. Response body: '<html>'",
            RegistryError,
            "not an MLflow server",
            "browser",
        ),
        (
            'FATAL: password authentication failed for user "me"',
            RegistryError,
            "user name or the password",
            "registry.uri",
        ),
        ("No module named 'psycopg'", RegistryError, "no driver", "pip install 'psycopg[binary]'"),
        ("(sqlite3.OperationalError) database or disk is full", StorageError, "disk is full", "free some space"),
        ("(sqlite3.OperationalError) attempt to write a readonly database", StorageError, "for writing", "owner"),
        ("(sqlite3.DatabaseError) file is not a database", RegistryError, "damaged", "backup"),
        ("(sqlite3.OperationalError) database is locked", RegistryError, "busy", "again"),
        ("Detected out-of-date database schema (found version a", RegistryError, "older MLflow", "mlflow db upgrade"),
        ("Can't locate revision identified by 'zzz'", RegistryError, "newer MLflow", "pip install"),
        ("something else with http://me:geheim@mlflow.corp in it", RegistryError, "something else", "doctor"),
    ],
)
def test_what_mlflow_says_becomes_what_a_person_can_do(said: str, kind: type, message: str, hint: str) -> None:
    from adapterctl.registry.faults import explained

    error = explained(RuntimeError(said), HOST)
    assert type(error) is kind
    assert message in error.message
    assert hint in error.hint
    assert "geheim" not in str(error)
