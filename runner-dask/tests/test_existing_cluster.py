"""A cluster that is there already: by address, by object, by TLS; it is left as it was found."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

import distributed
import pytest
from riverrun.exceptions import TaskRunnerStartError
from runner_dask import DaskTaskRunner
from runner_dask._clusters import opened

pytestmark = pytest.mark.usefixtures("nothing_left")
LIMIT = 100
IN_THREADS = {"processes": False, "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}


def remains(address, **kwargs):
    """What a scheduler knows of: its clients but for the one that asks, and those of workers; and keys."""

    def look(dask_scheduler):
        clients = {name for name in dask_scheduler.clients if name.startswith("Client-") and "remains" not in name}
        # A worker on which something asked for a client (a lazy collection does) has it until it ends.
        clients = {name for name in clients if not name.startswith("Client-worker-")}
        return [*sorted(clients), *sorted(dask_scheduler.tasks)]

    with distributed.Client(address, name="remains", set_as_default=False, **kwargs) as client:
        return client.run_on_scheduler(look)


@pytest.fixture
def eventually_none(wait_until):
    """Wait until a scheduler has no client and no key: it is told of the end of a connection, and not waited for."""
    return lambda address: wait_until.empty(lambda: remains(address), "nothing remains")


def test_by_address(shared_dask_cluster, caplog):
    caplog.set_level(logging.INFO, "riverrun")
    with opened(DaskTaskRunner(address=shared_dask_cluster.address)) as cluster:
        assert not cluster.temporary
        assert not cluster.adaptive
        assert cluster.cluster is None
        assert cluster.folder is None
        assert cluster.worker_errors() == ""
        cluster.hurry()  # the workers are somebody else's
        assert cluster.client.submit(int).result(LIMIT) == 0
        assert "riverrun" in cluster.client.id
    assert f"Connecting to the Dask cluster at `{shared_dask_cluster.address}`" in caplog.text


def test_it_is_left_as_it_was_found(shared_dask_cluster, eventually_none):
    eventually_none(shared_dask_cluster.address)  # of the tests before
    held = []

    def run():
        with opened(DaskTaskRunner(address=shared_dask_cluster.address)) as cluster:
            held.append(cluster.client.submit(int))
            assert held[0].result(LIMIT) == 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    eventually_none(shared_dask_cluster.address)
    assert shared_dask_cluster.scheduler.poll() is None


def test_a_worker_that_comes_late_is_waited_for(dask_scheduler):
    with ThreadPoolExecutor(1) as thread:

        def run():
            with opened(DaskTaskRunner(address=dask_scheduler.address)) as cluster:
                return cluster.client.submit(int).result(LIMIT)

        result = thread.submit(run)
        dask_scheduler.start_worker()
        assert result.result(LIMIT) == 0


def test_ten_at_once_with_one_runner(shared_dask_cluster, eventually_none):
    runner = DaskTaskRunner(address=shared_dask_cluster.address)

    def run(number):
        with opened(runner) as cluster:
            return cluster.client.submit(abs, number).result(LIMIT)

    with ThreadPoolExecutor(10) as threads:
        assert list(threads.map(run, range(10))) == list(range(10))
    eventually_none(shared_dask_cluster.address)


def test_by_object():
    with distributed.LocalCluster(n_workers=1, **IN_THREADS) as theirs:
        with opened(DaskTaskRunner(cluster=theirs)) as cluster:
            assert cluster.cluster is theirs
            assert not cluster.temporary
            assert not cluster.adaptive
            assert cluster.client.submit(int).result(LIMIT) == 0
        assert theirs.status == distributed.Status.running
        assert len(theirs.workers) == 1


def test_by_a_pickled_object(shared_dask_cluster):
    class Theirs:
        scheduler_address = shared_dask_cluster.address
        name = "theirs"

    runner = pickle.loads(pickle.dumps(DaskTaskRunner(cluster=Theirs())))  # noqa: S301 - made in the line itself
    with opened(runner) as cluster:
        assert cluster.cluster is None
        assert cluster.client.submit(int).result(LIMIT) == 0


def test_an_adaptive_cluster_may_be_empty():
    with distributed.LocalCluster(n_workers=0, **IN_THREADS) as theirs:
        theirs.adapt(minimum=0, maximum=1, interval="50ms")
        with opened(DaskTaskRunner(cluster=theirs, start_timeout=LIMIT)) as cluster:
            assert cluster.adaptive
            assert cluster.client.submit(int).result(LIMIT) == 0


def test_adapt_kwargs_make_it_adaptive():
    with distributed.LocalCluster(n_workers=0, **IN_THREADS) as theirs:
        adapt = {"minimum": 0, "maximum": 1, "interval": "50ms"}
        with opened(DaskTaskRunner(cluster=theirs, adapt_kwargs=adapt)) as cluster:
            assert cluster.adaptive
            assert cluster.client.submit(int).result(LIMIT) == 0


def test_a_cluster_on_the_loop_of_an_async_flow():
    def run(theirs):
        with opened(DaskTaskRunner(cluster=theirs)) as cluster:
            return cluster.client.submit(int).result(LIMIT)

    async def main():
        async with distributed.LocalCluster(n_workers=1, **IN_THREADS, asynchronous=True) as theirs:
            assert await asyncio.to_thread(run, theirs) == 0
            with pytest.raises(
                TaskRunnerStartError, match="made with `asynchronous=True` on the event loop of this thread"
            ):
                run(theirs)

    asyncio.run(main())


# -- TLS


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A temporary authority, and a certificate for 127.0.0.1 that it has signed."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("certificates")
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)

    def signed(name, issuer, issuer_key, key, extension):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = (
            builder.not_valid_before(now - day).not_valid_after(now + day).add_extension(extension, critical=False)
        )
        return builder.sign(issuer_key, hashes.SHA256())

    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = signed(
        "authority", None, authority_key, authority_key, x509.BasicConstraints(ca=True, path_length=None)
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    pem = serialization.Encoding.PEM
    no_password = serialization.NoEncryption()
    (folder / "ca.pem").write_bytes(authority.public_bytes(pem))
    (folder / "cert.pem").write_bytes(signed("cluster", authority.subject, authority_key, key, names).public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password))
    return folder


@pytest.fixture(scope="module")
def tls_cluster(certificate, make_dask_cluster):
    files = [f"--tls-{option}={certificate / file}" for option, file in FILES.items()]
    cluster = make_dask_cluster(*files, "--protocol", "tls")
    cluster.start_worker()
    cluster.wait_for_workers(1)
    return cluster


FILES = {"ca-file": "ca.pem", "cert": "cert.pem", "key": "key.pem"}


def security(certificate):
    ca, cert, key = (str(certificate / file) for file in FILES.values())
    return distributed.Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True)


def test_tls(tls_cluster, certificate):
    assert tls_cluster.address.startswith("tls://")
    runner = DaskTaskRunner(address=tls_cluster.address, client_kwargs={"security": security(certificate)})
    with opened(runner) as cluster:
        assert cluster.client.submit(int).result(LIMIT) == 0


def test_tls_without_certificates(tls_cluster):
    with (
        pytest.raises(TaskRunnerStartError) as error,
        opened(DaskTaskRunner(address=tls_cluster.address, start_timeout=1)),
    ):
        pass
    assert f"No connection to a Dask scheduler at {tls_cluster.address!r}: " in str(error.value)
    assert "For TLS, give client_kwargs={'security': distributed.Security(...)}" in str(error.value)


def test_tls_asked_for_where_there_is_none(tls_cluster):
    address = tls_cluster.address.replace("tls", "tcp")
    with pytest.raises(TaskRunnerStartError) as error, opened(DaskTaskRunner(address=address, start_timeout=1)):
        pass
    assert "If the scheduler uses TLS, its address begins with tls://, and client_kwargs needs 'security'." in str(
        error.value
    )


def test_a_temporary_cluster_with_tls_of_its_own():
    pytest.importorskip("cryptography")
    kwargs = {"n_workers": 1, "threads_per_worker": 1, "security": True}
    with opened(DaskTaskRunner(cluster_kwargs=kwargs)) as cluster:
        assert cluster.cluster.scheduler_address.startswith("tls://127.0.0.1:")
        assert cluster.client.submit(int).result(LIMIT) == 0
