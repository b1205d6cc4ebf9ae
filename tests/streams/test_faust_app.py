"""TLS and login as both Kafka clients understand them: translated for Faust, or refused; on a broker that has both."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.brokers import ApacheKafka, new_kafka
from tests.live import Live
from thalweg.streams.configuration import ConfigurationError, Kafka, load
from thalweg.streams.faust_app import credentials
from thalweg.streams.funnel import simulate
from thalweg.streams.replay import replay
from thalweg.streams.verify import verify

SECRET = "a-secret-word"
LOGIN = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "t",
    "sasl_password": SECRET,
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key, in one file."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1"]
    key, signed = file.with_name("key.pem"), file.with_name("certificate.pem")
    subprocess.run([*make, "-keyout", key, "-out", signed], check=True, capture_output=True)
    file.write_bytes(signed.read_bytes() + key.read_bytes())
    return file


def test_without_tls_and_login_there_are_none() -> None:
    assert credentials({}) is None
    assert credentials({"security.protocol": "plaintext", "linger.ms": "5"}) is None


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_login_is_passed_on(mechanism: str) -> None:
    found = credentials({**LOGIN, "sasl_mechanism": mechanism.lower()})
    assert (found.username, found.password, found.mechanism.value) == ("t", SECRET, mechanism)
    assert found.ssl_context is None


def test_tls_checks_by_the_certificates_that_are_named(certificate: Path) -> None:
    for said in (
        {"ssl.ca.location": str(certificate)},
        {"ssl_ca_pem": certificate.read_text()},
        {"ssl.ca.location": str(certificate), "ssl.certificate.location": str(certificate)},
    ):
        context = credentials({"security.protocol": "SSL", **said}).context
        assert len(context.get_ca_certs()) == 1
        assert context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED
    context = credentials({**LOGIN, "security_protocol": "SASL_SSL", "ssl.ca.location": str(certificate)}).ssl_context
    assert len(context.get_ca_certs()) == 1


def test_what_is_not_to_be_checked_is_not() -> None:
    context = credentials({"security.protocol": "SSL", "ssl.endpoint.identification.algorithm": "none"}).context
    assert not context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED
    context = credentials({"security.protocol": "SSL", "enable.ssl.certificate.verification": "false"}).context
    assert not context.check_hostname and context.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("client", "told"),
    [
        ({"security_protocol": "TLS"}, "security.protocol TLS is none of PLAINTEXT, SSL, SASL_"),
        ({**LOGIN, "sasl_mechanism": "GSSAPI"}, "sasl.mechanism GSSAPI is not supported"),
        ({"security_protocol": "SASL_SSL"}, "sasl.username and sasl.password are wanted"),
        ({"security_protocol": "SSL", "ssl_ca_location": "/nowhere.pem"}, "the certificates cannot be loaded"),
        ({"security_protocol": "SSL", "ssl_keystore_location": SECRET}, "ssl.keystore.location only one of the two"),
        ({**LOGIN, "sasl_oauthbearer_config": SECRET}, "sasl.oauthbearer.config only one of the two"),
    ],
)
def test_what_only_one_client_could_do_is_refused_by_name(client: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as raised:
        credentials(client)
    assert SECRET not in str(raised.value)


@pytest.fixture
def guarded(certificate: Path, tmp_path: Path) -> Iterator[Kafka]:
    """Settings of an Apache Kafka that wants a login, over TLS."""
    home = os.environ.get("THALWEG_TEST_KAFKA")
    if not home:
        pytest.skip("THALWEG_TEST_KAFKA names no folder with Apache Kafka")
    broker = ApacheKafka(Path(home).resolve(), tmp_path / "kafka" / "data", SECRET, certificate)
    broker.data.parent.mkdir()
    broker.start()
    login = {**LOGIN, "security_protocol": "SASL_SSL", "ssl_ca_location": str(certificate)}
    yield msgspec.structs.replace(new_kafka(broker.guarded_address), client=login)
    broker.kill()


@pytest.mark.slow
@pytest.mark.broker
def test_on_a_broker_that_wants_a_login_over_tls_all_goes_on_and_the_word_is_nowhere(
    guarded: Kafka, tmp_path: Path
) -> None:
    log = tmp_path / "funnel.parquet"
    simulate(log, 3_000, 5, days=9, users=60, items=90)
    settings = load(log.with_suffix(".toml"))
    live = Live(tmp_path / "live", settings, guarded)
    said = live.run("topics", "create")
    live.publish(log, close=True)
    said += live.worker()
    assert "assigned" in said and "elected" in said, "both clients told where they stand"
    replay([log], tmp_path / "state", settings, close=True)
    found = verify(tmp_path / "state", live.state)
    assert found.equal and found.boundaries > 0, found.differences
    stranger = msgspec.structs.replace(guarded, client={**guarded.client, "sasl_username": "nobody"})
    refused = Live(tmp_path / "refused", settings, stranger)
    said += refused.run("topics", "create", status=1)
    said += refused.run("worker", "--state", str(refused.state), status=1)
    assert SECRET not in said
    kept = [file for file in live.state.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
    assert kept == []
