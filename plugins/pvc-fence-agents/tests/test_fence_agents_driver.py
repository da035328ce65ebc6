"""What the driver believes of agents that work, lie, hang, refuse or talk nonsense."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from pvc_core.model.errors import InvalidRequest
from pvc_core.plugin import AuthFailed, ConfigError, DriverError, NotReady, PowerState
from pvc_core.testkit.waiting import eventually

ON, OFF = PowerState.ON, PowerState.OFF


def _alive(pid: int) -> bool:
    with suppress(OSError), Path(f"/proc/{pid}/stat").open() as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


def test_the_power_is_read(cabinet):
    driver = cabinet.driver()
    assert driver.power_status(cabinet.target("node1")) is ON
    cabinet.switch("node1", on=False)
    assert driver.power_status(cabinet.target("node1")) is OFF


def test_off_is_read_before_and_after(cabinet):
    assert cabinet.driver().power_off(cabinet.target()) is OFF
    assert cabinet.actions() == ["status", "off", "status", "status"]


def test_a_dark_node_is_not_switched_again(cabinet):
    cabinet.switch("node1", on=False)
    assert cabinet.driver().power_off(cabinet.target()) is OFF
    assert cabinet.actions() == ["status", "status"]


def test_off_that_is_read_once_is_not_believed(cabinet):
    cabinet.behave(
        status="if sum(call['action'] == 'status' for call in data['calls']) == 1: print('Status: OFF'); sys.exit(2)"
    )
    assert cabinet.driver().power_off(cabinet.target()) is OFF
    assert cabinet.actions() == ["status", "status", "off", "status", "status"]


def test_on_is_read_before_and_after(cabinet):
    cabinet.switch("node1", on=False)
    assert cabinet.driver().power_on(cabinet.target()) is ON
    assert cabinet.actions() == ["status", "on", "status"]


def test_an_agent_that_lies_is_not_believed(cabinet):
    cabinet.behave(off="print('Success: Powered OFF'); sys.exit(0)")
    with pytest.raises(DriverError, match="3 s later it reads on"):
        cabinet.driver(power_timeout=3).power_off(cabinet.target())


def test_power_that_goes_slowly_is_waited_for(cabinet):
    cabinet.behave(
        off="book(lambda data: data.__setitem__('readings', 2)); sys.exit(0)",
        status="left = book().get('readings')\n"
        "if left == 0: switch('off')\n"
        "if left: book(lambda data: data.__setitem__('readings', left - 1))",
    )
    assert cabinet.driver().power_off(cabinet.target()) is OFF
    assert cabinet.actions() == ["status", "off", "status", "status", "status", "status"]


def test_an_agent_that_gave_up_waiting_may_still_have_switched(cabinet):
    cabinet.behave(
        off="book(lambda data: data.__setitem__('told', 1)); fail('Failed: Timed out waiting to power OFF')",
        status="if book().get('told') == 2: switch('off')\n"
        "if 'told' in book(): book(lambda data: data.__setitem__('told', 2))",
    )
    assert cabinet.driver().power_off(cabinet.target()) is OFF


def test_an_agent_that_gave_up_is_quoted_when_the_power_stays(cabinet):
    cabinet.behave(off="fail('Failed: Timed out waiting to power OFF')")
    with pytest.raises(DriverError, match=r"reads on \(fence_fake failed: Timed out waiting to power OFF\)"):
        cabinet.driver(power_timeout=3).power_off(cabinet.target())


def test_a_refusal_is_told_at_once(cabinet):
    cabinet.behave(off="fail('Failed: The user does not have the correct privileges to do the requested action.')")
    with pytest.raises(AuthFailed, match="correct privileges"):
        cabinet.driver().power_off(cabinet.target())
    assert cabinet.actions() == ["status", "off", "status"]


def test_a_failure_after_which_the_power_is_off_is_off(cabinet):
    cabinet.behave(off="switch('off'); fail('Connection lost')")
    assert cabinet.driver().power_off(cabinet.target()) is OFF


def test_an_agent_that_hangs_after_switching_is_killed_and_the_power_read(cabinet):
    cabinet.behave(off="switch('off'); time.sleep(600)")
    assert cabinet.driver(power_timeout=6).power_off(cabinet.target()) is OFF
    (hung,) = [call["pid"] for call in cabinet.calls() if call["action"] == "off"]
    assert not _alive(hung)


def test_a_stubborn_agent_is_killed_with_its_children(cabinet):
    cabinet.behave(
        status="import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: book(lambda data: data.__setitem__('child', child))\n"
        "time.sleep(600)"
    )
    with pytest.raises(NotReady, match=r"fence_fake got no answer from its device in 2 s and was killed"):
        cabinet.driver(status_timeout=2).power_status(cabinet.target())
    (call,) = cabinet.calls()
    eventually(lambda: not _alive(call["pid"]), "the agent is gone")
    eventually(lambda: not _alive(cabinet.book()["child"]), "its child is gone")


@pytest.mark.parametrize(
    ("snippet", "message"),
    [
        ("sys.exit(2)", "did not say so: it ended with status 2 and said nothing"),
        ("say('usage: fence_fake'); sys.exit(2)", "did not say so: usage: fence_fake"),
        ("print('Status: OFF'); sys.exit(0)", "status 0, which means on, but did not say so: Status: OFF"),
        ("print('Status: ON'); sys.exit(2)", "status 2, which means off, but did not say so: Status: ON"),
        ("print('Status: ON'); print('Status: OFF'); sys.exit(2)", "did not say so"),
        ("print('Status: UNKNOWN'); sys.exit(0)", "did not say so"),
        ("print('Status: OFF'); sys.exit(1)", "fence_fake failed: Status: OFF"),
        ("print('Status: OFF', flush=True); os.kill(os.getpid(), 9)", "fence_fake failed: Status: OFF"),
        ("sys.stdout.buffer.write(bytes(range(256)) * 50); sys.exit(2)", "did not say so"),
        ("sys.exit(7)", "it ended with status 7 and said nothing"),
    ],
)
def test_nonsense_is_neither_on_nor_off(cabinet, snippet, message):
    cabinet.behave(status=snippet)
    for call in (cabinet.driver().power_status, cabinet.driver().power_off, cabinet.driver().power_on):
        with pytest.raises(DriverError) as caught:
            call(cabinet.target())
        assert message in str(caught.value)
        assert str(caught.value).isprintable()
    assert set(cabinet.actions()) == {"status"}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Failed: 401 Unauthorized", AuthFailed),
        ("Login failed: invalid credentials", AuthFailed),
        # One message of the agents' library for both: no ground to call a password wrong.
        ("Unable to connect/login to fencing device", NotReady),
        ("Connection timed out", NotReady),
        ("Max retries exceeded with url: /redfish/v1", NotReady),
        ("Failed: Unable to obtain correct plug status or plug is not available", DriverError),
    ],
)
def test_what_went_wrong_has_its_own_error(cabinet, said, error):
    cabinet.behave(status=f"fail({said!r})")
    with pytest.raises(DriverError) as caught:
        cabinet.driver().power_status(cabinet.target())
    assert type(caught.value) is error
    assert said.removeprefix("Failed: ") in str(caught.value)


def test_no_agent_is_ever_told_to_reboot(cabinet):
    driver = cabinet.driver(power_timeout=3)
    driver.power_off(cabinet.target())
    driver.power_on(cabinet.target())
    cabinet.behave(off="sys.exit(0)")
    with pytest.raises(DriverError):
        driver.power_off(cabinet.target())
    assert set(cabinet.actions()) == {"status", "off", "on"}
    assert not [call for call in cabinet.calls() if "method" in call["given"]]


def test_an_agent_gets_what_was_given_and_nothing_else(cabinet):
    parameters = {"ipport": "1161", "version_used": "v3", "ssl": "false", "insecure": "no", "power_wait": "3"}
    cabinet.driver().power_status(cabinet.target(**parameters))
    (call,) = cabinet.calls()
    assert call["given"] == {
        "action": "status",
        "ip": "192.0.2.1",
        "plug": "node1",
        "ipport": "1161",
        "version_used": "V3",
        "ssl": "0",  # false must be said of what is true by default, and cannot be said of anything else
        "power_wait": "3",
    }


@pytest.mark.parametrize("secret", ["hush", " leading and trailing ", '"quoted"', "a=b c", "käse🧀", "#x", "'\"$(x)`"])
def test_a_secret_reaches_the_agent_on_standard_input_only(cabinet, secret):
    cabinet.require(secret)
    assert cabinet.driver().power_off(cabinet.target(password_file=cabinet.secret(secret))) is OFF
    for call in cabinet.calls():
        assert call["given"]["password"] == secret
        assert call["argv"] == []
        assert secret not in call["env"].values()


def test_a_changed_secret_is_used_without_a_restart(cabinet):
    driver = cabinet.driver()
    cabinet.require("new")
    target = cabinet.target(password_file=cabinet.secret("old"))
    with pytest.raises(AuthFailed):
        driver.power_status(target)
    cabinet.secret("new")
    assert driver.power_status(target) is ON


@pytest.mark.parametrize("secret", ["hush hush!", "käse'\"\\", "a+b/c=", "{x}%20", "it's & <b>"])
@pytest.mark.parametrize(
    "form",
    [
        "{0}",
        "{0!r}",
        "https://u:{1}@bmc/",
        "-P {2} status",
        '{{"password": {3}}}',
        "snmpget -c '{4}' failed",
        "<password>{5}</password>",
    ],
)
def test_a_secret_that_an_agent_repeats_is_masked(cabinet, secret, form):
    snippet = (
        "import json, shlex; from urllib.parse import quote; from xml.sax.saxutils import escape\n"
        "word = given['password']\n"
        "words = word, quote(word, safe=''), shlex.quote(word), json.dumps(word), word.replace(chr(39), chr(39) + chr(92) + 2 * chr(39)), escape(word)\n"
        f"fail({form!r}.format(*words))"
    )
    cabinet.behave(status=snippet)
    with pytest.raises(DriverError) as caught:
        cabinet.driver().power_status(cabinet.target(password_file=cabinet.secret(secret)))
    told = str(caught.value)
    assert "***" in told
    assert [part for part in secret.split() if len(part) > 2 and part in told] == []
    assert secret not in f"{caught.value.__cause__!r} {caught.value.__context__!r}"


def test_a_secret_that_cannot_be_read_is_said_before_anything_is_done(cabinet):
    with pytest.raises(ConfigError, match="cannot read the secret in /no/such/file"):
        cabinet.driver().power_off(cabinet.target(password_file="/no/such/file"))
    path = cabinet.secret("two\nlines")
    with pytest.raises(ConfigError, match="has a line break"):
        cabinet.driver().power_off(cabinet.target(password_file=path))
    Path(path).chmod(0o644)
    with pytest.raises(ConfigError, match="open to every user"):
        cabinet.driver().power_off(cabinet.target(password_file=path))
    assert cabinet.calls() == []


def test_metadata_are_read_again_when_the_agent_changes(cabinet, agent_xml):
    driver = cabinet.driver()
    for _ in range(3):
        driver.power_status(cabinet.target())
    asked = [call for call in cabinet.book()["calls"] if call["action"] == "metadata"]
    assert [call["argv"] for call in asked] == [["-o", "metadata"]]
    path = cabinet.directory / "fence_fake"
    cabinet.add("fence_fake", agent_xml("fence_fake", parameters=({"name": "outlet"},)))
    os.utime(path, ns=(1, 1))
    with pytest.raises(InvalidRequest, match="no parameter 'ip'"):
        driver.power_status(cabinet.target())


def test_an_agent_that_is_not_there_is_named(cabinet):
    with pytest.raises(NotReady, match=r"no agent .*/fence_fike .*did you mean 'fence_fake'"):
        cabinet.driver().power_status(cabinet.target(agent="fence_fike"))


@pytest.mark.parametrize("xml", ["", "This is no XML", "<html/>", "<resource-agent><parameters>"])
def test_an_agent_without_metadata_is_not_used(cabinet, xml):
    cabinet.add("fence_odd", xml)
    with pytest.raises(DriverError, match="fence_odd prints no metadata that can be read"):
        cabinet.driver().power_status(cabinet.target(agent="fence_odd"))
    assert cabinet.calls() == []


@pytest.mark.parametrize(
    ("name", "xml", "message"),
    [
        ("fence_ping", {"actions": ("on", "off", "reboot")}, "it has no action 'status'"),
        ("fence_kill", {"actions": ("off", "status", "reboot")}, "it has no action 'on'"),
        (
            "fence_switch",
            {"actions": ("on", "off", "status")},
            "it cuts a node off from storage or network, and the node runs on",
        ),
        (
            "fence_blind",
            {"parameters": ({"name": "missing_as_off", "type": "boolean", "default": "1"},)},
            "it calls a machine off that it does not find",
        ),
        ("fence_crosslink", {}, "it takes a node that does not answer a ping for dead"),
    ],
)
def test_an_agent_whose_off_proves_nothing_is_refused(cabinet, agent_xml, name, xml, message):
    cabinet.add(name, agent_xml(name, **xml))
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=f"{name} cannot be used.*: {message}"):
            cabinet.driver().power_off(cabinet.target(agent=name))
    assert cabinet.calls() == []


def test_the_administrator_may_believe_an_agent_all_the_same(cabinet, agent_xml):
    cabinet.add("fence_switch", agent_xml("fence_switch", actions=("on", "off", "status")))
    driver = cabinet.driver(believed=("fence_switch",))
    assert driver.power_off(cabinet.target(agent="fence_switch")) is OFF


def test_a_node_without_agents_is_not_ready(make_driver, tmp_path):
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotReady, match="install fence-agents"):
        make_driver(tmp_path).fence_preflight()
    with pytest.raises(NotReady, match="install fence-agents"):
        make_driver(tmp_path / "nowhere").fence_preflight()
