"""Logins, access lists and TLS, switched on by configuration, on real servers."""

import re
from pathlib import Path

import pytest

from pvc_core.config.schema import ClusterSection, Member, StoreAuth, Tls, ZooKeeper
from pvc_core.model.errors import InvalidRequest
from pvc_core.plugin.errors import ConfigError
from pvc_core.store import keys
from pvc_core.store.api import ANY, Create, Put, StoreRefused, StoreUnavailable
from pvc_core.store.connect import open_store
from pvc_core.store.schema import initialise
from pvc_core.store.zookeeper import Login, ZooKeeperStore
from pvc_core.testkit.certificates import Authority
from pvc_core.testkit.waiting import eventually
from pvc_core.testkit.zookeeper import ZooKeeperEnsemble, wipe

pytestmark = pytest.mark.real

LOGIN = Login("pvc", "c0rrect horse")


@pytest.fixture(scope="module")
def login_servers(tmp_path_factory):
    with ZooKeeperEnsemble(tmp_path_factory.mktemp("login"), login=LOGIN) as ensemble:
        yield ensemble


@pytest.fixture(scope="module")
def tls_servers(tmp_path_factory):
    with ZooKeeperEnsemble(tmp_path_factory.mktemp("tls"), tls=True, login=LOGIN) as ensemble:
        yield ensemble


@pytest.fixture
def password_file(tmp_path):
    path = tmp_path / "password"
    path.write_text(f"{LOGIN.password}\n")
    path.chmod(0o600)
    return path


def _cluster(ensemble, *, password_file=None, tls=None, username="pvc"):
    (member,) = ensemble.members
    return ClusterSection(
        coordinators=(Member(name="hv1", address=member.address),),
        zookeeper=ZooKeeper(
            port=member.client_port,
            auth=StoreAuth(username=username, password_file=str(password_file)) if password_file else None,
            tls=tls,
        ),
    )


@pytest.fixture
def opened():
    """Opens stores, and closes them at the end."""
    stores = []

    def opened(cluster, **options):
        stores.append(open_store(cluster, 4.0, **{"wait_s": 10.0, "patience_s": 0.5, **options}))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture(autouse=True)
def _empty(request):
    yield
    for name in ("login_servers", "tls_servers"):
        if name in request.fixturenames:
            store = request.getfixturevalue(name).connect()
            wipe(store)
            store.close()


def test_with_a_login_the_whole_tree_is_closed_to_others(login_servers, password_file, opened):
    store = opened(_cluster(login_servers, password_file=password_file))
    initialise(store)
    store.commit(Create(f"{keys.ROOT}/lease/hv1", b"", ephemeral=True))
    stranger = opened(_cluster(login_servers))
    calls = [
        lambda: stranger.get(keys.ROOT),
        lambda: stranger.get_many([keys.ROOT]),
        lambda: stranger.children(keys.ROOT),
        lambda: stranger.commit(Create(f"{keys.ROOT}/x", b"")),
        lambda: stranger.commit(Put(keys.CLUSTER.path, b"", ANY)),
        lambda: stranger.get(f"{keys.ROOT}/lease/hv1"),
    ]
    for call in calls:
        with pytest.raises(StoreRefused, match=r"without a login.*cluster\.zookeeper\.auth"):
            call()
    assert store.children(keys.ROOT)


def test_a_wrong_password_is_refused_at_once(login_servers, tmp_path, opened):
    path = tmp_path / "wrong"
    path.write_text("wrong")
    path.chmod(0o600)
    with pytest.raises(StoreRefused, match=r"refused the login of user 'pvc'; check .*password file"):
        opened(_cluster(login_servers, password_file=path), wait_s=30.0)


def test_an_unknown_user_is_refused(login_servers, password_file, opened):
    initialise(opened(_cluster(login_servers, password_file=password_file)))
    # ZooKeeper 3.8 lets an unknown user in who has the password of the one before; the access list keeps it out.
    with pytest.raises(StoreRefused):
        opened(_cluster(login_servers, password_file=password_file, username="nobody")).get(keys.ROOT)


def test_a_daemon_with_a_wrong_password_goes_on_trying_and_its_calls_say_why(login_servers, tmp_path, opened):
    path = tmp_path / "wrong"
    path.write_text("wrong")
    path.chmod(0o600)
    store = opened(_cluster(login_servers, password_file=path), wait_s=None, patience_s=10.0)
    states = []
    store.watch_state(states.append)
    for call in (lambda: store.get("/pvc"), lambda: store.commit(Create("/pvc", b""))):
        with pytest.raises(StoreRefused, match="refused the login"):
            call()
    assert states == []


def test_servers_may_demand_a_login(tmp_path, opened):
    with ZooKeeperEnsemble(tmp_path, login=LOGIN, login_required=True) as ensemble:
        store = opened(_cluster(ensemble))
        with pytest.raises(StoreUnavailable, match="login"):
            store.get("/pvc")
        store.close()
        member = ensemble.connect()
        member.commit(Create("/pvc", b""))
        member.close()


def test_a_tree_that_was_open_can_be_closed(login_servers, password_file, opened):
    stranger = opened(_cluster(login_servers))
    initialise(stranger)
    store = opened(_cluster(login_servers, password_file=password_file))
    assert store.protect("/pvc") == len(keys.BASE) + 2
    assert store.protect("/pvc") == 0
    with pytest.raises(StoreRefused):
        stranger.children(keys.ROOT)
    with pytest.raises(InvalidRequest, match="no login"):
        stranger.protect("/pvc")


def test_the_password_is_in_no_representation():
    assert LOGIN.password not in repr(LOGIN)
    assert LOGIN.password not in f"{LOGIN}"


@pytest.mark.parametrize(("content", "mode", "message"), [("x", 0o644, "mode 0644"), ("\n", 0o600, "is empty")])
def test_a_password_file_that_cannot_be_used_is_named(login_servers, tmp_path, opened, content, mode, message):
    path = tmp_path / "password"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=message):
        opened(_cluster(login_servers, password_file=path))


def test_a_missing_password_file_is_named(login_servers, tmp_path, opened):
    with pytest.raises(ConfigError, match=r"password_file: cannot read .*/absent"):
        opened(_cluster(login_servers, password_file=tmp_path / "absent"))


def test_tls_and_login_together(tls_servers, password_file, opened):
    store = opened(_cluster(tls_servers, password_file=password_file, tls=tls_servers.client_tls))
    initialise(store)
    # Many answers at once: some are decrypted before anybody asks for them.
    store.commit(*(Create(f"{keys.ROOT}/task/{number}", b"x" * 900) for number in range(800)))
    store._multi_read = False
    assert all(store.get_many([f"{keys.ROOT}/task/{number}" for number in range(800)]))
    seen = []
    store.watch(keys.ROOT, seen.append)
    store.commit(Put(keys.CLUSTER.path, b"{}", ANY))
    store.commit(Put(keys.CLUSTER.path, b"{}", ANY))
    assert store.get(keys.CLUSTER.path).version == 2


def _assert_not_served(store, problem):
    """All attempts of a store to connect fail, and it says why."""

    def message():
        with pytest.raises(StoreUnavailable) as caught:
            store.get("/pvc")
        return str(caught.value)

    eventually(lambda: re.search(rf"tried [0-9.:]+ \([^)]*{problem}", message()), f"it says {problem}")


def _wanting_tls(ensemble, opened, tls):
    return opened(_cluster(ensemble, tls=tls), wait_s=None, patience_s=0.1)


def test_a_server_of_another_authority_is_not_trusted(tls_servers, tmp_path, opened):
    other = Authority(tmp_path / "other")
    good = tls_servers.client_tls
    tls = Tls(ca=str(other.certificate), certificate=good.certificate, key=good.key)
    _assert_not_served(_wanting_tls(tls_servers, opened, tls), "certificate verify failed")


def test_a_client_of_another_authority_is_refused(tls_servers, tmp_path, opened):
    other = Authority(tmp_path / "other").issue("stranger", "127.0.0.1")
    tls = Tls(ca=tls_servers.client_tls.ca, certificate=other.certificate, key=other.key)
    _assert_not_served(_wanting_tls(tls_servers, opened, tls), "(certificate|alert|broken|reset)")


def test_a_server_at_an_address_that_its_certificate_does_not_name_is_not_trusted(tmp_path, opened):
    with ZooKeeperEnsemble(tmp_path, tls=True) as ensemble:
        ensemble.stop()
        files = ensemble.authority.issue("server1", "192.0.2.1")
        (tmp_path / "tls/server1.both").write_text(Path(files.key).read_text() + Path(files.certificate).read_text())
        ensemble.up(1)
        _assert_not_served(_wanting_tls(ensemble, opened, ensemble.client_tls), "certificate verify failed: IP address")


def test_a_client_without_tls_is_not_served(tls_servers, opened):
    _assert_not_served(_wanting_tls(tls_servers, opened, None), "(no answer|broken|closed|reset)")


def test_tls_files_that_cannot_be_used_are_named(tls_servers, tmp_path, opened):
    good = tls_servers.client_tls
    with pytest.raises(ConfigError, match=r"tls\.ca: cannot use .*/absent"):
        opened(_cluster(tls_servers, tls=Tls(ca=str(tmp_path / "absent"), certificate=good.certificate, key=good.key)))
    with pytest.raises(ConfigError, match=r"tls\.certificate and \.key: cannot use"):
        opened(_cluster(tls_servers, tls=Tls(ca=good.ca, certificate=good.certificate, key=good.ca)))


def test_a_store_may_be_opened_before_any_server_runs(tmp_path, opened):
    ensemble = ZooKeeperEnsemble(tmp_path)
    store = opened(_cluster(ensemble), wait_s=None, patience_s=30.0)
    assert isinstance(store, ZooKeeperStore)
    with ensemble:
        initialise(store)
    store.close()
