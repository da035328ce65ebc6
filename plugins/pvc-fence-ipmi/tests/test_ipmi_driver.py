"""What the driver makes of what ipmitool says, with an ipmitool that says what a BMC of the real one cannot."""

import re

import pytest

from pvc_core.plugin import AuthFailed, DriverError, NotReady, PowerState
from pvc_core.plugin.errors import PvcError

SILENT = "fail 'Get Auth Capabilities error'"


def error_of(call, target):
    with pytest.raises(PvcError) as caught:
        call(target)
    return caught.value


def test_the_real_command_line(ipmitool, driver, target):
    assert driver.power_status(target(privilege="administrator", cipher_suite="3")) is PowerState.ON
    (call,) = ipmitool.calls()
    assert call == ("-v -I lanplus -H 192.0.2.1 -p 623 -U pvc -C 3 -L ADMINISTRATOR -N 1 -R 2 -E chassis power status")


def test_preflight_says_what_to_install(make_driver, ipmitool):
    assert make_driver(ipmitool=str(ipmitool.path)).fence_preflight()
    with pytest.raises(NotReady, match="apt-get install ipmitool"):
        make_driver(ipmitool="/nowhere/ipmitool").fence_preflight()
    with pytest.raises(NotReady, match="ended with status 1"):
        make_driver(ipmitool="false").fence_preflight()


# --- reading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("say", "state"), [("on", PowerState.ON), ("off", PowerState.OFF)])
def test_a_power_state_is_read(ipmitool, driver, target, say, state):
    ipmitool.behave(status=f"{say}; echo 'Get HPM.x Capabilities request failed, compcode = d4' >&2")
    assert driver.power_status(target()) is state


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (":", "answered nothing"),
        ("printf 'Chassis Power is o'", "'Chassis Power is o'"),
        ("echo Chassis Power is unknown", "'Chassis Power is unknown'"),
        ("echo Chassis Power is offline", "'Chassis Power is offline'"),
        ("echo CHASSIS POWER IS OFF", "'CHASSIS POWER IS OFF'"),
        ("on; off", "'Chassis Power is on?Chassis Power is off'"),
        ("echo x; off", "'x?Chassis Power is off'"),
        (r"printf '\377\376\000\033[2J'", "instead of its power"),
        ("head -c 100000 /dev/zero | tr '\\0' A", f"'{'A' * 197}...'"),
    ],
)
def test_garbage_is_no_power_state(ipmitool, driver, target, answer, shown):
    ipmitool.behave(status=answer)
    error = error_of(driver.power_status, target())
    assert type(error) is DriverError
    assert shown in str(error)
    assert str(error).isprintable()


def test_a_failed_call_that_says_off_is_not_off(ipmitool, driver, target):
    ipmitool.behave(status="off; exit 1")
    error = error_of(driver.power_status, target())
    assert "ipmitool ended with status 1: Chassis Power is off" in str(error)
    assert driver_says_off(driver, target) is False


def driver_says_off(driver, target):
    try:
        return driver.power_off(target()) is PowerState.OFF
    except DriverError:
        return False


def test_an_ipmitool_that_crashes_is_told(ipmitool, driver, target):
    ipmitool.behave(status="echo 'lanplus.c:1907: ipmi_lanplus_build_v2x_msg: Assertion' >&2; kill -ABRT $$")
    assert "ended with status -6" in str(error_of(driver.power_status, target()))


def test_an_ipmitool_that_hangs_is_killed(ipmitool, make_driver, target):
    ipmitool.behave(status="sleep 600")
    driver = make_driver(ipmitool=str(ipmitool.path), status_timeout=0.3)
    error = error_of(driver.power_status, target())
    assert isinstance(error, NotReady)
    assert "had not answered after 0.3 s" in str(error)


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("> RAKP 2 HMAC is invalid", AuthFailed, "refuses the password of user pvc: it is not the one in /"),
        ("RAKP 2 message indicates an error : unauthorized name", AuthFailed, "has no user pvc"),
        ("RAKP 2 message indicates an error : unauthorized role requested", AuthFailed, "the privilege operator"),
        ("Error in open session response message : invalid role", AuthFailed, "the privilege operator"),
        (
            "Set Session Privilege Level to OPERATOR failed: Requested privilege level exceeds limit",
            AuthFailed,
            "the privilege operator",
        ),
        ("Get Chassis Power Status failed: Insufficient privilege level", AuthFailed, "user pvc even read the power"),
        ("Get Chassis Power Status failed: Node busy", DriverError, "refuses the command: Node busy"),
        ("Set Session Privilege Level to OPERATOR failed", NotReady, "try cipher_suite=3"),
        (
            "Error in open session response message : invalid authentication algorithm",
            DriverError,
            "refuses cipher suite 17: try cipher_suite=3",
        ),
        ("Error in open session response message : no matching cipher suite", DriverError, "cipher_suite=3"),
        ("Error in open session response message : insufficient resources for session", NotReady, "no session left"),
        ("This BMC does not support IPMI v2 / RMCP+", DriverError, "does not speak IPMI 2.0"),
        ("Address lookup for bmc1 failed", NotReady, "its name has no address here"),
        ("> Error: no response from RAKP 1 message", NotReady, "fell silent"),
        ("Loading IANA PEN Registry...", NotReady, "answers, but opens no session"),
        ("Get Auth Capabilities error", NotReady, "does not answer: "),
    ],
)
def test_every_reason_has_its_own_outcome(ipmitool, driver, target, said, kind, message):
    ipmitool.behave(status=f"fail '{said}'")
    error = error_of(driver.power_status, target())
    assert isinstance(error, kind)
    assert kind is not DriverError or not isinstance(error, NotReady | AuthFailed)
    assert message in str(error)
    assert "192.0.2.1" in str(error)


def test_a_refused_cipher_suite_proposes_another(ipmitool, driver, target):
    ipmitool.behave(status="fail 'Error in open session response message : no matching cipher suite'")
    error = error_of(driver.power_status, target(cipher_suite="3"))
    assert "refuses cipher suite 3: try cipher_suite=17" in str(error)
    assert not error.retryable


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"mode": 0o644}, "is open to every user (mode 0644); run: chmod 0600"),
        ({"password": ""}, "is empty"),
        ({"password": "a" * 21}, "longer than 20 bytes"),
        ({"password": "ä" * 11}, "longer than 20 bytes"),
        ({"password": "one\ntwo"}, "not one line of printable characters"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_said(ipmitool, driver, target, make_secret, file, message):
    error = error_of(driver.power_status, target(password_file=make_secret(**file, name="other")))
    assert isinstance(error, DriverError)
    assert not error.retryable
    assert message in str(error)
    assert ipmitool.calls() == []


def test_a_missing_password_file_is_said(driver, target):
    assert "cannot read the secret in /nowhere/bmc" in str(
        error_of(driver.power_status, target(password_file="/nowhere/bmc"))
    )


def test_a_changed_password_is_used_at_once(ipmitool, driver, target, make_secret):
    same = target()
    driver.power_status(same)
    make_secret("another one")
    driver.power_status(same)
    assert "IPMITOOL_PASSWORD=another one\n" in (ipmitool.root / "env").read_text()


# --- switching ------------------------------------------------------------------------------------------


def test_off_is_hard_and_read_back(ipmitool, driver, target):
    ipmitool.behave(status='[ -e "$here/dark" ] && off || on', power_off='touch "$here/dark"')
    assert driver.power_off(target()) is PowerState.OFF
    assert ipmitool.commands() == ["status", "off", "status"]


def test_a_dark_node_is_not_told_again(ipmitool, driver, target):
    ipmitool.behave(status="off")
    assert driver.power_off(target()) is PowerState.OFF
    assert ipmitool.commands() == ["status"]


def test_on_is_read_back_too(ipmitool, driver, target):
    ipmitool.behave(status='[ -e "$here/light" ] && on || off', power_on='touch "$here/light"')
    assert driver.power_on(target()) is PowerState.ON
    assert driver.power_on(target()) is PowerState.ON
    assert ipmitool.commands() == ["status", "on", "status", "status"]


def test_a_bmc_that_says_yes_and_does_nothing_is_told_several_times_and_not_believed(ipmitool, driver, target):
    ipmitool.behave(power_off="echo 'Chassis Power Control: Down/Off'")
    error = error_of(driver.power_off, target())
    told = ipmitool.commands().count("off")
    assert 2 <= told <= 6
    assert f"was told {told} times to switch the power off, and it said yes; after 1.5 s it still reads on" in str(
        error
    )


def test_a_bmc_that_is_slow_is_waited_for(ipmitool, driver, target):
    ipmitool.behave(status="[ $(nth status) -ge 6 ] && off || on")
    assert driver.power_off(target()) is PowerState.OFF
    assert ipmitool.commands().count("off") >= 1


def test_a_command_that_fails_and_works_all_the_same_is_success(ipmitool, driver, target):
    ipmitool.behave(
        status='[ -e "$here/dark" ] && off || on',
        power_off='touch "$here/dark"; fail "> Error: no response from RAKP 3 message"',
    )
    assert driver.power_off(target()) is PowerState.OFF


def test_a_command_that_is_refused_is_told_at_the_end(ipmitool, driver, target):
    ipmitool.behave(
        power_off="echo 'Set Chassis Power Control to Down/Off failed: Command not supported in present state' >&2; exit 1"
    )
    error = error_of(driver.power_off, target())
    assert "refuses the command: Command not supported in present state; after 1.5 s it still reads on" in str(error)


def test_insufficient_privilege_ends_at_once_and_says_which_one_is_needed(ipmitool, driver, target):
    ipmitool.behave(
        power_off="echo 'Set Chassis Power Control to Down/Off failed: Insufficient privilege level' >&2; exit 1"
    )
    error = error_of(driver.power_off, target())
    assert isinstance(error, AuthFailed)
    assert "lets user pvc look, but not switch the power, with the privilege operator" in str(error)
    assert ipmitool.commands() == ["status", "off"]


def test_a_bmc_that_is_silent_from_the_start_is_not_told_anything(ipmitool, driver, target):
    ipmitool.behave(status=SILENT)
    assert isinstance(error_of(driver.power_off, target()), NotReady)
    assert ipmitool.commands() == ["status"]


def test_a_bmc_that_is_busy_at_first_is_asked_again(ipmitool, driver, target):
    busy = "fail 'Error in open session response message : insufficient resources for session'"
    ipmitool.behave(
        status=f'case $(nth status) in 1|2) {busy} ;; esac; [ -e "$here/dark" ] && off || on',
        power_off='touch "$here/dark"',
    )
    assert driver.power_off(target()) is PowerState.OFF
    assert ipmitool.commands() == ["status", "status", "status", "off", "status"]


def test_a_node_is_switched_however_short_the_time_is(ipmitool, make_driver, target):
    ipmitool.behave(status='[ -e "$here/dark" ] && off || { sleep 0.05; on; }', power_off='touch "$here/dark"')
    driver = make_driver(ipmitool=str(ipmitool.path), power_timeout=0.01)
    assert driver.power_off(target()) is PowerState.OFF


def test_a_bmc_that_stays_busy_until_the_time_is_over(ipmitool, make_driver, target):
    ipmitool.behave(status="fail 'Error in open session response message : insufficient resources for session'")
    driver = make_driver(ipmitool=str(ipmitool.path), power_timeout=0.01)
    assert "has no session left" in str(error_of(driver.power_off, target()))
    assert len(ipmitool.calls()) < 5


def test_a_bmc_that_stays_busy_is_not_told_anything(ipmitool, driver, target):
    ipmitool.behave(status="fail 'Error in open session response message : insufficient resources for session'")
    assert "has no session left" in str(error_of(driver.power_off, target()))
    assert ipmitool.commands() == ["status"] * 5


def test_a_bmc_whose_network_is_gone_for_a_while_after_the_command_is_asked_again(ipmitool, driver, target):
    """One that shares a NIC with its host loses the link when the host's power changes."""
    silent = "fail 'Could not open socket!'"
    ipmitool.behave(status=f"case $(nth status) in 1) on ;; 2|3|4) {silent} ;; *) off ;; esac")
    assert driver.power_off(target()) is PowerState.OFF
    assert ipmitool.commands().count("off") >= 1


def test_a_bmc_that_dies_after_the_command_proves_nothing(ipmitool, driver, target):
    ipmitool.behave(status="[ $(nth status) = 1 ] && on || fail 'Could not open socket!'")
    error = error_of(driver.power_off, target())
    assert re.search("after 1.5 s it could not be read: .* there is no route to it", str(error))


def test_garbage_ends_the_waiting_after_a_few_readings(ipmitool, make_driver, target):
    ipmitool.behave(status="echo ERR")
    driver = make_driver(ipmitool=str(ipmitool.path), poll_interval=0.01, power_timeout=45)
    error = error_of(driver.power_off, target())
    assert "answered 'ERR' instead of its power" in str(error)
    assert ipmitool.commands() == ["status", "off", *["status"] * 4]


def test_one_garbled_answer_does_not_end_the_waiting(ipmitool, driver, target):
    ipmitool.behave(status="case $(nth status) in 1) on ;; 2|4) echo ERR ;; 3) on ;; *) off ;; esac")
    assert driver.power_off(target()) is PowerState.OFF


def test_an_ipmitool_that_hangs_does_not_hold_the_call_for_long(ipmitool, make_driver, target):
    ipmitool.behave(status="[ $(nth status) = 1 ] && on || sleep 600", power_off="sleep 600")
    driver = make_driver(ipmitool=str(ipmitool.path), status_timeout=0.3, power_timeout=1, poll_interval=0.01)
    error = error_of(driver.power_off, target())
    assert "had not answered after" in str(error)


def test_a_password_that_becomes_wrong_in_between_ends_the_waiting(ipmitool, driver, target):
    ipmitool.behave(status="[ $(nth status) = 1 ] && on || fail '> RAKP 2 HMAC is invalid'")
    assert isinstance(error_of(driver.power_off, target()), AuthFailed)
    assert ipmitool.commands() == ["status", "off", "status"]
